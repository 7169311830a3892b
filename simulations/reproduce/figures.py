"""An exhibit's pictures, drawn from what runs left in their folders."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from clients.simulated import Population
from fedenc.transformation.bundle import load_transformation
from fedenc.transformation.pictures import compare
from simulations import attack
from simulations.report.run import filters
from simulations.reproduce.lines import matching
from simulations.reproduce.papers import shows
from simulations.run import THIRD_PARTY
from simulations.study import plots
from simulations.study.design import Cell, Plot
from simulations.study.exhibits import Exhibit
from simulations.study.runs import ATTACKS, BUNDLES, RUNS, bundle
from simulations.study.table import Row

_SHOWN = 10  # test images that protected ones are compared with, as in Ito et al.'s fig. 7
Picture = tuple[str, str, bytes]  # title, file ending, content


def draw(
    exhibit: Exhibit, rows: Sequence[Row], cells: Sequence[Cell], folder: Path
) -> list[Picture]:
    """Everything that can be drawn of an exhibit by now.

    Args:
        rows: of the study's table, or of its attacks.
        cells: of the study.
        folder: the study's.
    """
    shown = [cell for cell in cells if shows(exhibit, cell)]
    first = [cell for cell in shown if cell.scenario.seed == min(c.scenario.seed for c in shown)]
    match exhibit.kind:
        case "accuracy":
            return _bars(exhibit, rows)
        case "attacks" | "pictures":
            return list(_attacked(exhibit, first, folder))
        case "boxes":
            return _boxes(exhibit, first, folder)
        case "filters":
            found = ((cell, filters(folder / RUNS / cell.id)) for cell in first)
            return [(_title(cell), "png", content) for cell, content in found if content]
        case "networks":
            return _networks(first, folder)


def _bars(exhibit: Exhibit, rows: Sequence[Row]) -> list[Picture]:
    if not matching(exhibit, rows):
        return []
    plot = Plot(
        x=exhibit.rows,
        y=exhibit.measures[0],
        colour=exhibit.columns,
        facets=exhibit.panels,
        where=exhibit.where,
    )
    return [("", "svg", plots.draw(plot, rows)["svg"])]


def _attacked(exhibit: Exhibit, cells: Sequence[Cell], folder: Path) -> Iterator[Picture]:
    """What attacks made of some images: plain, protected, and the attacker's."""
    for cell in cells:
        for name in exhibit.attacks:
            path = folder / RUNS / cell.id / ATTACKS / "pictures" / f"{name}.png"
            if path.exists():
                yield f"{_title(cell)}: {name}", "png", path.read_bytes()


def _boxes(exhibit: Exhibit, cells: Sequence[Cell], folder: Path) -> list[Picture]:
    """|SSIM| of single images as box plots: a panel for each run, a box for each attack."""
    panels = {}
    for cell in cells:
        path = folder / RUNS / cell.id / ATTACKS / attack.IMAGES
        if path.exists():
            wanted = [("estimate", "=", "attack")]
            found = pq.read_table(path, filters=wanted).to_pydict()
            values: dict[str, list[float]] = {}
            for name, ssim in zip(found["attack"], found["ssim_uniform7"], strict=True):
                if name in exhibit.attacks and ssim is not None:
                    values.setdefault(name, []).append(abs(ssim))
            panels[_title(cell)] = values
    return [("", "svg", boxes(panels, exhibit.attacks))] if panels else []


def boxes(panels: Mapping[str, Mapping[str, Sequence[float]]], names: Sequence[str]) -> bytes:
    """Box plots as SVG: for every panel one box for each name, if it has values of that name."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(4, len(panels))
    height = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        *(height, columns),
        figsize=(1 + 2.6 * columns, 0.6 + 2.6 * height),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, values) in zip(axes.flat, panels.items(), strict=False):
        present = [name for name in names if values.get(name)]
        if present:
            axis.boxplot([values[name] for name in present], tick_labels=present, sym=".")
        axis.set_title(title, fontsize=9)
        axis.tick_params(axis="x", labelsize=8, labelrotation=30)
        axis.set_ylim(0, 1)
    axes[0][0].set_ylabel("|SSIM|")
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fedenc"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    plt.close(figure)
    return content.getvalue()


def _networks(cells: Sequence[Cell], folder: Path) -> list[Picture]:
    """Ten test images, and what the network of every run makes of them."""
    protected: list[tuple[str, torch.Tensor]] = []
    plain: torch.Tensor | None = None
    for cell in cells:
        shared = folder / BUNDLES / (bundle(cell) or "")
        own = folder / RUNS / cell.id / THIRD_PARTY
        place = own if own.exists() else shared
        if bundle(cell) is None or not place.exists():
            continue
        if plain is None:
            plain = torch.from_numpy(Population(cell.scenario).dataset.test.images[:_SHOWN].copy())
        label = _title(cell).replace("α", "alpha")  # pictures have Latin letters alone
        protected.append((label, load_transformation(place).protect(plain)))
    if plain is None:
        return []
    content = io.BytesIO()
    compare(plain, protected).save(content, "PNG")
    return [("", "png", content.getvalue())]


def _title(cell: Cell) -> str:
    values: Mapping[str, Any] = cell.labels
    return ", ".join(v if isinstance(v, str) else f"{k} = {v}" for k, v in values.items())
