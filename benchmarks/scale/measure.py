"""One measurement in a process of its own: ``python -m benchmarks.upload.measure KIND N PER_NODE``.

Prints one line of JSON. A fresh process for each keeps Ray's state, caches and peak memory apart.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.upload.scenarios import scenario
from simulations import engine

KINDS = {
    "fedenc": "participants' shards through Flower into the provider's pool",
    "ray": "raw Ray: the same shards, made by the same code, to the driver",
    "premade": "raw Ray: as many bytes, made beforehand, to the driver",
    "simulation": "a whole simulation with one epoch, for its memory",
}


def measure(kind: str, participants: int, per_node: int) -> dict[str, Any]:
    """Perform one measurement; see `KINDS`."""
    engine.quiet()
    from benchmarks.upload import engine as through_flower
    from benchmarks.upload import raw

    chosen = scenario(participants, per_node)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        if kind == "fedenc":
            found = through_flower.measure(chosen, Path(folder))
        elif kind == "simulation":
            from simulations.experiment import prepare
            from simulations.run import simulate

            result = simulate(prepare(chosen), Path(folder) / "run").result
            found = {
                "seconds": result["upload"]["seconds"],
                "participants": result["clients"]["uploaded"],
                "rss_peak": through_flower.peak_resident(),
            }
        else:
            found = raw.measure(chosen, premade=kind == "premade")
    return {"kind": kind, "per_node": per_node, "load_before": load} | found


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("participants", type=int)
    parser.add_argument("per_node", type=int)
    given = parser.parse_args()
    print(json.dumps(measure(given.kind, given.participants, given.per_node)))


if __name__ == "__main__":
    main()
