"""The papers that can be reproduced: study presets that name one, and their exhibits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fedenc.errors import ScenarioError
from simulations.study import design as designs
from simulations.study.design import Cell, Design
from simulations.study.exhibits import Exhibit, Paper
from simulations.study.plots import fits


@dataclass(frozen=True)
class Part:
    """Exhibits that one study of a paper makes, and the runs that these need."""

    study: str
    paper: Paper
    design: Design
    exhibits: tuple[Exhibit, ...]


def names() -> list[str]:
    """All papers, in alphabetical order."""
    return sorted({paper.name for _, paper, _ in _presets()})


def listing() -> Iterator[tuple[str, str, Exhibit]]:
    """Every exhibit with its paper's name and its study's."""
    for study, paper, exhibits in _presets():
        for exhibit in exhibits:
            yield paper.name, study, exhibit


def plan(
    paper: str,
    wanted: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    scale: float = 1.0,
    seeds: int | None = None,
) -> list[Part]:
    """What is to be run for some exhibits of a paper.

    Args:
        wanted: names such as "table 1" or fig8; none: all.
        overrides: ``section.key=value`` for all runs.
        scale: share of the images and of the epochs; 1 is the paper's own size.
        seeds: so many instead of the studies'.

    Raises:
        ScenarioError: no such paper or exhibit, a scale out of range, or runs with problems.
    """
    if not 0 < scale <= 1:
        raise ScenarioError(f"--scale is {scale:g}; expected a share above 0, at most 1")
    mine = [(study, own, shown) for study, own, shown in _presets() if own.name == paper]
    if not mine:
        raise ScenarioError(f"no paper is called {paper!r}; expected one of {', '.join(names())}")
    known = {short(one.name): one.name for _, _, shown in mine for one in shown}
    if unknown := [text for text in wanted if short(text) not in known]:
        raise ScenarioError(
            f"{paper} has no {unknown[0]!r} here; expected some of {', '.join(known.values())}"
        )
    chosen = {short(text) for text in wanted} or set(known)
    parts = []
    for study, own, shown in mine:
        exhibits = tuple(one for one in shown if short(one.name) in chosen)
        if exhibits:
            size = designs.Scale(scale, own.images, own.queries)
            design = designs.load(study, overrides, scale=size, seeds=seeds)
            cells = [c for c in design.cells if any(shows(one, c) for one in exhibits)]
            parts.append(Part(study, own, replace(design, cells=tuple(cells)), exhibits))
    return parts


def short(name: str) -> str:
    """An exhibit's name without what people write differently: "Figure 8" is fig8."""
    return "".join(name.lower().split()).replace("figure", "fig").replace(".", "")


def shows(exhibit: Exhibit, cell: Cell) -> bool:
    """Whether an exhibit needs a run: by the conditions that its scenario can meet."""
    known = cell.settings | dict(cell.labels)
    return fits(known, {name: v for name, v in exhibit.where.items() if name in known})


def _presets() -> Iterator[tuple[str, Paper, tuple[Exhibit, ...]]]:
    for name in designs.names():
        file = designs.file(name)
        if file.paper is not None:
            yield name, file.paper, file.exhibits
