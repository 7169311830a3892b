"""One measurement in a process of its own: ``python -m benchmarks.scale.measure KIND N PER_NODE``.

Prints one line of JSON. A fresh process for each keeps Ray's state, caches and peak memory apart.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.scale import scenarios
from simulations import engine

KINDS = {
    "fedenc": "participants' shards through Flower into the provider's pool",
    "ray": "raw Ray: the same shards, made by the same code, to the driver",
    "premade": "raw Ray: as many bytes, made beforehand, to the driver",
    "simulation": "a whole simulation of participants of one image, by part",
}


def measure(kind: str, participants: int, per_node: int) -> dict[str, Any]:
    """Perform one measurement; see `KINDS`."""
    engine.quiet()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = _measured(kind, participants, per_node, Path(folder))
    return {"kind": kind, "per_node": per_node, "load_before": load} | found


def _measured(kind: str, participants: int, per_node: int, folder: Path) -> dict[str, Any]:
    # Each imports what it measures and no more.
    if kind == "simulation":
        from benchmarks.scale import simulation

        began = time.time() - _age()
        return simulation.measure(scenarios.whole(participants, per_node), folder / "run", began)
    chosen = scenarios.uploads(participants, per_node)
    if kind == "fedenc":
        from benchmarks.scale import uploads

        return uploads.measure(chosen, folder)
    from benchmarks.scale import raw

    return raw.measure(chosen, premade=kind == "premade")


def _age() -> float:
    """Seconds since this process began."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


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
