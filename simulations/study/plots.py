"""Pictures of a study's table: means over seeds, with 95 % intervals."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from fedenc.scenario import Scenario
from simulations.study.design import Plot, flat
from simulations.study.table import COLUMNS, MEASURED, Row, over_seeds

FORMATS = ("svg", "png")


def draw(plot: Plot, rows: Sequence[Row]) -> dict[str, bytes]:
    """A plot's files by format; the columns must exist, see ``check``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [
        row
        for row in rows
        if row["status"] == "done"
        and row.get(plot.x) is not None
        and row.get(plot.y) is not None
        and fits(row, plot.where)
    ]
    facets = _values(shown, plot.facets) or [None]
    colours = _values(shown, plot.colour)
    bars = len(_values(shown, plot.x)) * len(colours)
    figure, axes = plt.subplots(
        1,
        len(facets),
        figsize=(2 + max(4.2, 0.25 * bars) * len(facets), 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, facet in zip(axes[0], facets, strict=True):
        own = [row for row in shown if plot.facets is None or row.get(plot.facets) == facet]
        _panel(axis, plot, own, colours)
        if plot.facets:
            axis.set_title(f"{plot.facets} = {facet}", fontsize=10)
    axes[0][0].set_ylabel(plot.y)
    if plot.colour and shown:
        axes[0][-1].legend(title=plot.colour, frameon=False, fontsize=9)
    if plot.title:
        figure.suptitle(plot.title)
    files = {}
    for kind in FORMATS:
        content = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else None
        with matplotlib.rc_context({"svg.hashsalt": "fedenc"}):
            figure.savefig(content, format=kind, dpi=150, metadata=metadata)
        files[kind] = content.getvalue()
    plt.close(figure)
    return files


def check(plot: Plot, labels: Sequence[str]) -> list[str]:
    """What is wrong with a plot, before anything is run: columns that the table will not have.

    Args:
        labels: the study's own columns.
    """
    known = {*labels, *COLUMNS, *flat(Scenario().dump(secret=False))}
    wanted = [plot.x, plot.y, plot.colour, plot.facets, *plot.where]
    return [
        f"a plot names the column {name!r}; known are {', '.join(sorted(known))}"
        for name in dict.fromkeys(wanted)
        if name and name not in known
    ]


def _panel(axis: Any, plot: Plot, rows: Sequence[Row], colours: Sequence[Any]) -> None:
    """A curve for each colour over numbers, bars over names; where x is measured, a point a run."""
    places = _values(rows, plot.x)
    numeric = all(isinstance(p, int | float) and not isinstance(p, bool) for p in places)
    width = 0.8 / max(1, len(colours))
    for number, colour in enumerate(colours):
        own = [row for row in rows if plot.colour is None or row.get(plot.colour) == colour]
        look: dict[str, Any] = {"color": f"C{number % 10}", "label": str(colour)}
        if plot.x in MEASURED:
            axis.plot([row[plot.x] for row in own], [row[plot.y] for row in own], "o", **look)
            continue
        points = []
        for index, place in enumerate(places):
            group = [row for row in own if row.get(plot.x) == place]
            if group:
                beside = index + (number - (len(colours) - 1) / 2) * width
                points.append((place if numeric else beside, *_interval(group, plot.y)))
        xs, means, below, above = zip(*points, strict=True) if points else ((), (), (), ())
        if numeric:
            axis.errorbar(xs, means, (below, above), marker="o", capsize=3, **look)
        else:
            whiskers = {"elinewidth": 1, "capsize": 2}
            axis.bar(xs, means, 0.9 * width, yerr=(below, above), error_kw=whiskers, **look)
    if not numeric:
        axis.set_xticks(range(len(places)), [str(p) for p in places], rotation=30, ha="right")
    elif plot.log:
        axis.set_xscale("log")
    axis.set_xlabel(plot.x)
    axis.grid(alpha=0.3, axis="both" if numeric else "y")
    axis.set_axisbelow(True)


def _interval(group: Sequence[Row], measure: str) -> tuple[float, float, float]:
    """A mean, and how far its 95 % interval reaches below and above: Student's over seeds; for one
    run that of its queries or images, where it is known."""
    mean, _, half = over_seeds(row[measure] for row in group)
    if half is not None:
        return mean, half, half
    low, high = (group[0].get(f"{measure}_{end}") for end in ("low", "high"))
    return (mean, 0.0, 0.0) if low is None or high is None else (mean, mean - low, high - mean)


def _values(rows: Sequence[Row], column: str | None) -> list[Any]:
    """Different values of a column, in the order of the table; numbers ascending."""
    if column is None:
        return [None]
    found = list(dict.fromkeys(row.get(column) for row in rows))
    numbers = all(isinstance(v, int | float) for v in found)
    return sorted(found) if numbers else found


def fits(values: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether values are those that conditions allow: one for each name, or a list of them."""
    return all(
        values.get(name) in (allowed if isinstance(allowed, list | tuple) else [allowed])
        for name, allowed in where.items()
    )
