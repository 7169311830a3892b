"""Whole simulations by part, and uploads beside raw Ray, for growing federations.

``python -m benchmarks.scale.run --out results.json`` measures and prints the tables of the README.
Every measurement runs in a process of its own; those to be compared follow one another, so that
both meet the machine in about the same state, and whole rounds are repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.scale import parts
from benchmarks.scale.measure import KINDS
from benchmarks.scale.scenarios import IMAGES
from fedenc.errors import EngineError
from fedenc.files import write_atomically
from fedenc.provenance import commit, hardware, versions

PER_NODE = 50  # of whole simulations
COMPARED = ("fedenc", "ray", "premade")
HERE = Path(__file__).resolve().parents[2]
Row = dict[str, Any]


def main() -> int:
    """Measure what the command line asks for; print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--whole",
        type=_count,
        nargs="*",
        default=[100, 1000, 10_000],
        metavar="PARTICIPANTS",
        help="of whole simulations, 50 on each node",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="a checkout of another commit, whose whole simulations are measured beside",
    )
    parser.add_argument(
        "--participants",
        type=_count,
        nargs="*",
        default=[100, 1000, 5000],
        help="of uploads beside raw Ray",
    )
    parser.add_argument(
        "--per-node", type=_count, nargs="+", default=[50, 1], help="of those, on each node"
    )
    parser.add_argument("--rounds", type=_count, default=3, help="measurements of each kind")
    parser.add_argument(
        "--once", type=_count, default=2000, help="Flower nodes from which on one round must do"
    )
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds for one measurement")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    given = parser.parse_args()
    found = run(
        [*product(given.per_node, given.participants)],
        rounds=given.rounds,
        once=given.once,
        limit=given.limit,
        whole=given.whole,
        against=given.against,
    )
    print(parts.table(found["simulations"]))
    print()
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
    whole: Sequence[int] = (),
    against: Path | None = None,
) -> Row:
    """Measure every case, round by round, and summarise.

    Args:
        cases: (participants on a node, participants).
        rounds: how often each is measured.
        once: cases with at least so many Flower nodes are measured in the first round only.
        limit: seconds after which a measurement is given up.
        whole: participants of whole simulations.
        against: a checkout of another commit, whose whole simulations are measured beside.

    Returns:
        The machine, ``simulations`` (see `parts.summarise`), ``rows`` (of uploads, see
        `summarise`), the ``samples`` behind them, and what ``failed``; a round in which a
        measurement failed is left out of its row.
    """
    began, load = time.time(), os.getloadavg()
    samples: list[Row] = []
    simulations: list[Row] = []
    commits = {"this": None} | ({} if against is None else {"other": against})
    for turn in range(rounds):
        for participants in whole:
            for of, root in commits.items():
                found = _measured("simulation", participants, PER_NODE, limit, root)
                simulations.append({"round": turn, "of": of} | found)
        for per_node, participants in cases:
            if turn and participants / per_node >= once:
                continue
            for kind in COMPARED:
                found = _measured(kind, participants, per_node, limit)
                samples.append({"round": turn} | found)
    return {
        "benchmark": "scale",
        "images_a_participant": IMAGES,
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "load_average": {"before": load, "after": os.getloadavg()},
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "minutes": (time.time() - began) / 60,
        "kinds": KINDS,
        "simulations": list(parts.summarise([s for s in simulations if "failed" not in s])),
        "rows": list(summarise(samples)),
        "samples": simulations + samples,
        "failed": [s for s in simulations + samples if "failed" in s],
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
            "driver_cpu_times_ray": median(
                own / ray
                for own, ray in zip(
                    *(
                        [s["cpu_seconds"] for s in mine if s["kind"] == kind]
                        for kind in COMPARED[:2]
                    ),
                    strict=True,
                )
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


def _measured(
    kind: str, participants: int, per_node: int, limit: float, root: Path | None = None
) -> Row:
    """One measurement in a fresh process; ``failed`` holds the reason if there is no figure.

    Args:
        root: a checkout whose fedenc is measured, by the code here; None: this one.
    """
    with _place(root) as (folder, environment):
        return _measured_in(folder, environment, kind, participants, per_node, limit)


@contextmanager
def _place(root: Path | None) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder and an environment in which Python finds these benchmarks and a checkout."""
    if root is None:
        yield HERE, dict(os.environ)
        return
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "benchmarks").symlink_to(HERE / "benchmarks")
        yield Path(name), os.environ | {"PYTHONPATH": str(root.resolve())}


def _measured_in(
    folder: Path,
    environment: Mapping[str, str],
    kind: str,
    participants: int,
    per_node: int,
    limit: float,
) -> Row:
    case = {"kind": kind, "participants": participants, "per_node": per_node}
    command = [sys.executable, "-m", "benchmarks.scale.measure", kind]
    found: Row
    try:
        done = subprocess.run(
            [*command, str(participants), str(per_node)],
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=folder,
            env=environment,
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
