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
from fedenc.errors import EngineError
from fedenc.files import write_atomically
from fedenc.provenance import commit, hardware, versions

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
    found = run(
        [*product(given.per_node, given.participants)],
        rounds=given.rounds,
        once=given.once,
        limit=given.limit,
        simulation=given.simulation,
    )
    print(table(found["rows"]))
    if given.out:
        write_atomically(given.out, json.dumps(found, indent=2).encode() + b"\n")
    return EngineError.exit_code if found["failed"] else 0


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

    Returns:
        The machine, ``rows`` (see `summarise`), the ``samples`` behind them, and what ``failed``;
        a round in which a measurement failed is left out of its row.
    """
    began, load = time.time(), os.getloadavg()
    samples: list[Row] = []
    for turn in range(rounds):
        for per_node, participants in cases:
            if turn and participants / per_node >= once:
                continue
            for kind in COMPARED:
                found = _measured(kind, participants, per_node, limit)
                samples.append({"round": turn} | found)
    whole = [_measured("simulation", 1000, 50, limit)] if simulation else []
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
        "failed": [s for s in samples + whole if "failed" in s],
    }


def summarise(samples: Sequence[Row]) -> Iterator[Row]:
    """Medians of every case, in milliseconds a participant, and how the kinds compare.

    Ratios are medians of the rounds' own ratios. ``growth`` compares a case with that of the fewest
    participants from 1,000 on.
    """
    cases = dict.fromkeys((s["per_node"], s["participants"]) for s in samples)
    smallest: dict[int, float] = {}
    for per_node, participants in cases:
        mine = _whole_rounds(
            [s for s in samples if (s["per_node"], s["participants"]) == (per_node, participants)]
        )
        if not mine:
            continue
        each = {
            kind: [1e3 * s["seconds"] / participants for s in mine if s["kind"] == kind]
            for kind in COMPARED
        }
        typical = median(each["fedenc"])
        if participants >= 1000:
            smallest.setdefault(per_node, typical)
        through = [s for s in mine if s["kind"] == "fedenc"]
        yield {
            "participants": participants,
            "per_node": per_node,
            "n": len(each["fedenc"]),
            "milliseconds": {kind: median(values) for kind, values in each.items()},
            "range": {kind: (min(values), max(values)) for kind, values in each.items()},
            "times_ray": median(
                own / ray for own, ray in zip(each["fedenc"], each["ray"], strict=True)
            ),
            "growth": typical / smallest[per_node] if per_node in smallest else None,
            "startup_seconds": median(s["startup"] for s in through),
            "megabytes": through[0]["bytes"] / 1e6,
            "driver_cpu_milliseconds": median(1e3 * s["cpu_seconds"] for s in through)
            / participants,
            "driver_peak_megabytes": max(s["rss_peak"] for s in through) / 1e6,
            "driver_growth_megabytes": max(s["rss_peak"] - s["rss_before"] for s in through) / 1e6,
            "load_average": median(s["load_before"] for s in mine),
        }


def _whole_rounds(samples: Sequence[Row]) -> list[Row]:
    """Samples of the rounds in which nothing failed."""
    broken = {s["round"] for s in samples if "failed" in s}
    return [s for s in samples if s["round"] not in broken]


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
    """One measurement in a fresh process; ``failed`` holds the reason if there is no figure."""
    case = {"kind": kind, "participants": participants, "per_node": per_node}
    command = [sys.executable, "-m", "benchmarks.upload.measure", kind]
    found: Row
    try:
        done = subprocess.run(
            [*command, str(participants), str(per_node)],
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=Path(__file__).resolve().parents[2],
            check=False,
        )
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        found = {"failed": last[:300]} if done.returncode else _printed(done.stdout)
    except subprocess.TimeoutExpired:
        found = {"failed": f"took more than {limit:g} s; see --limit"}
    if found.get("participants", participants) != participants:
        found = {"failed": f"moved the shards of {found['participants']} participants only"}
    shown = f"{found['seconds']:.2f} s" if "failed" not in found else f"failed: {found['failed']}"
    about = f"{kind}, {participants:,} participants, {per_node} a node: {shown}"
    print(about, file=sys.stderr, flush=True)
    return case | found


def _printed(output: str) -> Row:
    """What a measurement printed last; the engines may have said something before."""
    row: Row = json.loads(output.splitlines()[-1])
    return row


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
