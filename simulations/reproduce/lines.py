"""An exhibit's table: what the paper prints, what was measured, and the difference."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulations.reproduce.papers import shows
from simulations.study.design import Cell
from simulations.study.exhibits import Exhibit, Printed
from simulations.study.plots import fits
from simulations.study.table import Row, over_seeds

_SHARES = ("accuracy", "linked", "key_recovered", "recognised")  # shown in per cent
_IGNORED = ("data.root", "seed", "engine.")


@dataclass(frozen=True)
class Line:
    """One measured value, in per cent where it is a share.

    Attributes:
        labels: values of the exhibit's panels, rows and columns, and the attack.
        deviation: sample standard deviation over seeds; None for one seed.
        low, high: 95 % interval: Student's over seeds; that of the run's own row for one seed.
        difference: ours minus the paper's; None where they are not comparable.
    """

    labels: Mapping[str, Any]
    measure: str
    paper: float | None
    ours: float
    deviation: float | None
    low: float | None
    high: float | None
    difference: float | None
    seeds: int


def matching(exhibit: Exhibit, rows: Iterable[Row]) -> list[Row]:
    """The rows of a study's table that an exhibit shows."""
    return [row for row in rows if row.get("status") == "done" and fits(row, exhibit.where)]


def lines(exhibit: Exhibit, rows: Sequence[Row], cells: Sequence[Cell]) -> list[Line]:
    """The lines of a table, in the order of the study.

    Args:
        rows: of the study's table, or of its attacks.
        cells: of the study.
    """
    by = [name for name in (exhibit.panels, exhibit.rows, exhibit.columns) if name]
    by += ["attack"] if exhibit.kind == "attacks" else []
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in matching(exhibit, rows):
        groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
    changed = {cell.id: cell.changed for cell in cells}
    found = []
    panels = list(dict.fromkeys(values[0] for values in groups))
    for values, group in sorted(groups.items(), key=lambda item: panels.index(item[0][0])):
        labels = dict(zip(by, values, strict=True))
        printed = _printed(exhibit, labels)
        as_published = not any(key in changed[row["run"]] for row in group for key in exhibit.needs)
        for number, measure in enumerate(exhibit.measures):
            measured = [row for row in group if row.get(measure) is not None]
            if measured:
                paper = printed[number] if number < len(printed) else None
                found.append(_line(labels, measure, measured, paper, as_published))
    return found


def _line(
    labels: Mapping[str, Any],
    measure: str,
    rows: Sequence[Row],
    paper: float | None,
    as_published: bool,
) -> Line:
    unit = 100 if measure in _SHARES else 1
    values = [unit * row[measure] for row in rows]
    ours, spread, half = over_seeds(values)
    ends = [rows[0].get(f"{measure}_{end}") for end in ("low", "high")]
    low, high = (None if end is None else unit * end for end in ends)
    if half is not None:
        low, high = ours - half, ours + half
    difference = None if paper is None or not as_published else ours - paper
    return Line(labels, measure, paper, ours, spread, low, high, difference, len(values))


def _printed(exhibit: Exhibit, labels: Mapping[str, Any]) -> Sequence[float]:
    """The paper's values; of attacks, for those that the exhibit names. Others stand beside."""
    if "attack" in labels and labels["attack"] not in exhibit.attacks:
        return ()
    row = exhibit.printed.get(str(labels[exhibit.rows]), {})
    column = str(labels[exhibit.columns]) if exhibit.columns else ""
    found: Printed | None = row.get(column)
    if found is None:
        return ()
    return found if isinstance(found, tuple) else (found,)


def deviations(exhibit: Exhibit, cells: Sequence[Cell]) -> list[str]:
    """Settings that are not the published ones, in the runs that an exhibit shows."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for cell in cells:
        if not shows(exhibit, cell):
            continue
        values = cell.settings
        for key, before in cell.changed.items():
            if not key.startswith(_IGNORED):
                old, new = found.setdefault(key, (set(), set()))
                old.add(_said(before))
                new.add(_said(values.get(key)))
    return [
        f"{key} = {' or '.join(sorted(new))} (published: {' or '.join(sorted(old))})"
        for key, (old, new) in found.items()
    ]


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)
