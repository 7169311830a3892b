"""The parts of whole simulations: medians, sums, and a table."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

Row = dict[str, Any]
Parts = Mapping[str, tuple[float, float]]  # of each part: CPU seconds of the driver, wall seconds
START = ("imports", "check", "ray", "nodes", "first upload")
SHARED = ("uploads", "pool", "queries", "score")  # which grow with the participants
TRAINING = "training"


def summarise(samples: Sequence[Row]) -> Iterator[Row]:
    """Medians of every case, in seconds, parts in their order. ``growth`` compares the CPU time of
    a participant with that in the case of the fewest from 1,000 on; ``of_other`` compares CPU
    time outside training with that of another commit in the same round."""
    smallest: dict[tuple[str, int], float] = {}
    for of, participants, per_node in dict.fromkeys(map(_case, samples)):
        mine = [s for s in samples if _case(s) == (of, participants, per_node)]
        parts = {
            part: tuple(median(s["parts"][part][i] for s in mine) for i in (0, 1))
            for part in mine[0]["parts"]
        }
        outside = [_outside(s["parts"]) for s in mine]
        each = 1e3 * sum(parts[part][0] for part in SHARED) / participants
        if participants >= 1000:
            smallest.setdefault((of, per_node), each)
        first = smallest.get((of, per_node))
        others = {
            s["round"]: s
            for s in samples
            if _case(s)[1:] == (participants, per_node) and s["of"] != of
        }
        ratios = [
            _outside(s["parts"])[0] / _outside(others[s["round"]]["parts"])[0]
            for s in mine
            if s["round"] in others
        ]
        yield {
            "of": of,
            "commit": mine[0]["commit"],
            "participants": participants,
            "per_node": per_node,
            "n": len(mine),
            "parts": parts,
            "outside_training": tuple(map(median, zip(*outside, strict=True))),
            "cpu_milliseconds_each": each,
            "growth": None if first is None else each / first,
            "of_other": median(ratios) if ratios else None,
            "driver_peak_megabytes": max(s["rss_peak"] for s in mine) / 1e6,
            "load_average": median(s["load_before"] for s in mine),
        }  # fmt: skip


def _case(sample: Row) -> tuple[str, int, int]:
    return sample["of"], sample["participants"], sample["per_node"]


def _outside(parts: Parts) -> tuple[float, float]:
    """Seconds outside training."""
    cpu, wall = zip(*(seconds for part, seconds in parts.items() if part != TRAINING), strict=True)
    return sum(cpu), sum(wall)


def table(rows: Sequence[Row]) -> str:
    """CPU seconds of every case as a Markdown table; wall seconds in brackets."""
    columns = ("start", *SHARED, "rest", "outside training")
    names = [
        f"{row['participants']:,}{'' if row['of'] == 'this' else ', ' + row['of']}" for row in rows
    ]
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(rows)]
    sums = [_columns(row) for row in rows]
    for column in columns:
        cells = (f"{cpu:.1f} ({wall:.1f})" for cpu, wall in (found[column] for found in sums))
        lines.append(f"| {column} | {' | '.join(cells)} |")
    growth = ("" if row["growth"] is None else f"{row['growth']:.2f}" for row in rows)
    for name, values in (
        ("CPU ms a participant", (f"{row['cpu_milliseconds_each']:.2f}" for row in rows)),
        ("of 1,000", growth),
        ("driver's peak, MB", (f"{row['driver_peak_megabytes']:.0f}" for row in rows)),
        ("load", (f"{row['load_average']:.0f}" for row in rows)),
    ):
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines)


def _columns(row: Row) -> dict[str, tuple[float, float]]:
    parts = row["parts"]

    def total(names: Sequence[str]) -> tuple[float, float]:
        found = [parts[name] for name in names]
        return sum(cpu for cpu, _ in found), sum(wall for _, wall in found)

    rest = [name for name in parts if name not in (*START, *SHARED, TRAINING)]
    return {
        "start": total(START),
        **{part: parts[part] for part in SHARED},
        "rest": total(rest),
        "outside training": row["outside_training"],
    }
