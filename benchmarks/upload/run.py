"""Upload seconds a participant, through Flower and through raw Ray, for growing federations.

``python -m benchmarks.upload.run --out results.json`` measures and prints the table of the README.
Every measurement runs in a process of its own; those to be compared follow one another, so that
both meet the machine in about the same state, and whole rounds are repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.upload.measure import KINDS
from benchmarks.upload.scenarios import IMAGES
from fedenc.errors import EngineError, FedencError
from fedenc.files import write_atomically
from simulations.result import commit, hardware, versions

COMPARED = ("fedenc", "ray", "premade")
Row = dict[str, Any]


def main() -> int:
    """Measure what the command line asks for; print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--participants", type=_count, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--per-node", type=_count, nargs="+", default=[50, 1])
    parser.add_argument("--rounds", type=_count, default=3, help="measurements of each kind")
    parser.add_argument(
        "--once", type=_count, default=2000, help="Flower nodes from which on one round must do"
    )
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds for one measurement")
    parser.add_argument(
        "--simulation", action="store_true", help="also the memory of a whole simulation of 1,000"
    )
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    given = parser.parse_args()
    try:
        found = run(
            [*product(given.per_node, given.participants)],
            rounds=given.rounds,
            once=given.once,
            limit=given.limit,
            simulation=given.simulation,
        )
    except FedencError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(found["rows"]))
    if given.out:
        write_atomically(given.out, json.dumps(found, indent=2).encode() + b"\n")
    return 0


def run(
    cases: Sequence[tuple[int, int]],
    *,
    rounds: int,
    once: int = 2000,
    limit: float = 1200.0,
    simulation: bool = False,
) -> Row:
    """Measure every case, round by round, and summarise.

    Args:
        cases: (participants on a node, participants).
        rounds: how often each is measured.
        once: cases with at least so many Flower nodes are measured in the first round only.
        limit: seconds after which a measurement is given up.
        simulation: also run one whole simulation of 1,000 participants, for its memory.

    Raises:
        EngineError: a measurement failed or took too long.
    """
    began, load = time.time(), os.getloadavg()
    samples: list[Row] = []
    for turn in range(rounds):
        for per_node, participants in cases:
            if turn and participants / per_node >= once:
                continue
            for kind in COMPARED:
                samples.append(_measured(kind, participants, per_node, limit))
    whole = [_measured("simulation", 1000, n, limit) for n in (50, 1)] if simulation else []
    return {
        "benchmark": "upload",
        "images_a_participant": IMAGES,
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "load_average": {"before": load, "after": os.getloadavg()},
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "minutes": (time.time() - began) / 60,
        "kinds": KINDS,
        "rows": list(summarise(samples)),
        "simulation": whole,
        "samples": samples,
    }


def summarise(samples: Sequence[Row]) -> Iterator[Row]:
    """Medians of every case, in milliseconds a participant, and how the kinds compare.

    Ratios are medians of the rounds' own ratios. ``growth`` compares a case with that of the fewest
    participants from 1,000 on.
    """
    cases = dict.fromkeys((s["per_node"], s["participants"]) for s in samples)
    smallest: dict[int, float] = {}
    for per_node, participants in cases:
        mine = [
            s for s in samples if (s["per_node"], s["participants"]) == (per_node, participants)
        ]
        each = {
            kind: [1e3 * s["seconds"] / participants for s in mine if s["kind"] == kind]
            for kind in COMPARED
        }
        own = median(each["fedenc"])
        if participants >= 1000:
            smallest.setdefault(per_node, own)
        through = [s for s in mine if s["kind"] == "fedenc"]
        yield {
            "participants": participants,
            "per_node": per_node,
            "n": len(each["fedenc"]),
            "milliseconds": {kind: median(values) for kind, values in each.items()},
            "range": {kind: (min(values), max(values)) for kind, values in each.items()},
            "times_ray": median(
                mine / ray for mine, ray in zip(each["fedenc"], each["ray"], strict=True)
            ),
            "growth": own / smallest[per_node] if per_node in smallest else None,
            "startup_seconds": median(s["startup"] for s in through),
            "megabytes": through[0]["bytes"] / 1e6,
            "driver_cpu_milliseconds": median(1e3 * s["cpu_seconds"] for s in through)
            / participants,
            "driver_peak_megabytes": max(s["rss_peak"] for s in through) / 1e6,
            "driver_growth_megabytes": max(s["rss_peak"] - s["rss_before"] for s in through) / 1e6,
            "load_average": median(s["load_before"] for s in mine),
        }


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    head = (
        "| per node | participants | n | fedenc (ms) | raw Ray (ms) | ratio "
        "| raw Ray, bytes made before (ms) | of 1,000 | driver's peak (MB) | load |"
    )
    lines = [head, "|" + "---:|" * head.count(" | ") + "---:|"]
    for row in rows:
        each, growth = row["milliseconds"], row["growth"]
        cells = (
            f"{row['per_node']}",
            f"{row['participants']:,}",
            f"{row['n']}",
            f"{each['fedenc']:.2f}",
            f"{each['ray']:.2f}",
            f"{row['times_ray']:.2f}",
            f"{each['premade']:.2f}",
            "" if growth is None else f"{growth:.2f}",
            f"{row['driver_peak_megabytes']:.0f}",
            f"{row['load_average']:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(kind: str, participants: int, per_node: int, limit: float) -> Row:
    """One measurement in a fresh process."""
    name = f"{kind} with {participants} participants, {per_node} a node"
    command = [sys.executable, "-m", "benchmarks.upload.measure", kind]
    try:
        done = subprocess.run(
            [*command, str(participants), str(per_node)],
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=Path(__file__).resolve().parents[2],
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{name} took more than {limit:g} s; raise --limit") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineError(f"{name} failed: {last[:300]}")
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    if row["participants"] != participants:
        raise EngineError(f"{name} moved the shards of {row['participants']} participants only")
    print(f"{name}: {row['seconds']:.2f} s", file=sys.stderr, flush=True)
    return row


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
