"""Pictures of a study's table: means over seeds, with Student's 95 % intervals."""

import io
from collections.abc import Sequence
from typing import Any

from fedenc.errors import ScenarioError
from simulations.study.design import Plot
from simulations.study.table import Row, over_seeds

FORMATS = ("svg", "png")


def draw(plot: Plot, rows: Sequence[Row]) -> dict[str, bytes]:
    """A plot's files by format.

    Raises:
        ScenarioError: a column that the table does not have.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    done = [row for row in rows if row["status"] == "done"]
    known = {name for row in done for name in row}
    wanted = [plot.x, plot.y, plot.colour, plot.facets, *plot.where]
    if done and (missing := [name for name in wanted if name and name not in known]):
        raise ScenarioError(
            f"a plot names the column {missing[0]!r}; known are {', '.join(sorted(known))}"
        )
    shown = [
        row
        for row in done
        if row.get(plot.y) is not None
        and all(row.get(name) in _several(value) for name, value in plot.where.items())
    ]
    facets = _values(shown, plot.facets)
    figure, axes = plt.subplots(
        1,
        len(facets),
        figsize=(2 + 4.2 * len(facets), 4),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, facet in zip(axes[0], facets, strict=True):
        own = [row for row in shown if plot.facets is None or row.get(plot.facets) == facet]
        _panel(axis, plot, own)
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


def _panel(axis: Any, plot: Plot, rows: Sequence[Row]) -> None:
    places = _values(rows, plot.x)
    numeric = all(isinstance(p, int | float) and not isinstance(p, bool) for p in places)
    for colour in _values(rows, plot.colour):
        own = [row for row in rows if plot.colour is None or row.get(plot.colour) == colour]
        points = []
        for number, place in enumerate(places):
            values = [row[plot.y] for row in own if row.get(plot.x) == place]
            if values:
                points.append((place if numeric else number, *over_seeds(values)))
        if points:
            xs, means, halves = zip(*points, strict=True)
            spread = [half or 0.0 for half in halves]
            axis.errorbar(xs, means, spread, marker="o", capsize=3, label=str(colour))
    if not numeric:
        axis.set_xticks(range(len(places)), [str(p) for p in places], rotation=30, ha="right")
    elif plot.log:
        axis.set_xscale("log")
    axis.set_xlabel(plot.x)
    axis.grid(alpha=0.3)


def _values(rows: Sequence[Row], column: str | None) -> list[Any]:
    """Different values of a column, in the order of the table; numbers ascending."""
    if column is None:
        return [None]
    found = list(dict.fromkeys(row.get(column) for row in rows))
    numbers = all(isinstance(v, int | float) for v in found)
    return sorted(found) if numbers else found


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]
