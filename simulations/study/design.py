"""What a study runs: a base scenario under every combination of axes and variants and each seed."""

import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fedenc.errors import FedencError, ScenarioError
from fedenc.scenario import Scenario
from fedenc.scenario.sections import Count, NonNegative, Section
from simulations import presets
from simulations.experiment import prepare

FOLDER = Path(__file__).parent.parent / "studies"
VARIANT = "variant"  # the column that names variants
Values = Mapping[str, Any]


class Plot(Section):
    """A picture of the table: means over seeds, with 95 % intervals."""

    x: str  # a column, such as clients.count
    y: str = "accuracy"
    colour: str | None = None  # a column whose values get a line each
    facets: str | None = None  # a column whose values get a panel each
    where: dict[str, Any] = Field(default_factory=dict)  # rows that are shown: column = value
    log: bool = False  # x on a logarithmic scale
    title: str | None = None


class About(Section):
    """What is asked, and how often."""

    name: str
    question: str
    seeds: Count | tuple[NonNegative, ...] = 1  # so many, from 0 on, or these


class File(Section):
    """The content of a study's file."""

    study: About
    base: dict[str, Any] = Field(default_factory=dict)  # `preset` or `file`, and scenario keys
    axes: dict[str, Any] = Field(default_factory=dict)  # scenario key = list of values
    variants: tuple[dict[str, Any], ...] = ()  # `name`, and scenario keys
    exclude: tuple[dict[str, Any], ...] = ()  # combinations that are left out: column = value
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One run to make.

    Attributes:
        labels: the values of axes and variant that make it differ from other cells.
        scenario: complete and valid.
    """

    labels: Values
    scenario: Scenario

    @property
    def id(self) -> str:
        """Names its folder: the hash of all that decides the result, the seed, and the number of
        machines, which decides the speed."""
        machines = self.scenario.engine.machines
        where = "" if machines is None else f"-m{machines}"
        return f"{self.scenario.hash()[:12]}-s{self.scenario.seed}{where}"

    @property
    def text(self) -> str:
        """For people."""
        parts = [v if k == VARIANT else f"{k} = {_short(v)}" for k, v in self.labels.items()]
        return ", ".join((*parts, f"seed {self.scenario.seed}"))


@dataclass(frozen=True)
class Design:
    """A study whose cells are all valid."""

    name: str
    question: str
    cells: tuple[Cell, ...] = field(repr=False)
    plots: tuple[Plot, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The labels of all cells, in the order of the file."""
        return list(dict.fromkeys(label for cell in self.cells for label in cell.labels))


def names() -> list[str]:
    """All study presets, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def question(name: str) -> str:
    """What a study preset asks."""
    return _read(FOLDER / f"{name}.toml").study.question


def load(name: str, overrides: Sequence[str] = ()) -> Design:
    """Read a study's file, or a preset, and make all of its cells.

    Args:
        overrides: ``section.key=value``, for all cells.

    Raises:
        ScenarioError: the file is missing or malformed; or the problems of all cells, each once.
    """
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    if name not in names() and not path.exists():
        known = ", ".join(names())
        raise ScenarioError(
            f"no study preset or file {name!r}; presets are {known}, files end in .toml"
        )
    file = _read(path)
    cells, problems = list[Cell](), dict[str, None]()
    for labels, sets in _combinations(file):
        for seed in _seeds(file.study):
            try:
                cells.append(_cell(file, labels, sets, seed, overrides, path.parent))
            except FedencError as error:
                where = ", ".join(f"{k} = {_short(v)}" for k, v in labels.items()) or "the base"
                found = error.problems if isinstance(error, ScenarioError) else (str(error),)
                problems |= dict.fromkeys(f"{where}: {text}" for text in found)
    if not cells and not problems:
        problems["the study has no run left; exclude fewer combinations"] = None
    repeated = [c.text for c, n in _counted(cells) if n > 1]
    problems |= dict.fromkeys(f"{text} is the same run as another one" for text in repeated)
    if problems:
        raise ScenarioError(problems)
    return Design(file.study.name, file.study.question, tuple(cells), file.plots)


def _read(path: Path) -> File:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"study file {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"study file {path} is not valid TOML: {error}") from None
    try:
        file = File.model_validate(values)
    except ValidationError as error:
        raise ScenarioError(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'][0].lower()}{e['msg'][1:]}"
            for e in error.errors()
        ) from None
    problems = [
        f"axes.{key} is {values!r}; expected a list of values, at least one"
        for key, values in flat(file.axes).items()
        if not (isinstance(values, list) and values)
    ]
    problems += [f"variant {i} has no name" for i, v in enumerate(file.variants) if "name" not in v]
    if problems:
        raise ScenarioError(problems)
    return file


def flat(values: Values, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _combinations(file: File) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Labels and scenario keys of all combinations that are not excluded."""
    axes = flat(file.axes)
    excluded = [flat(one) for one in file.exclude]
    for variant in file.variants or ({},):
        own = flat({k: v for k, v in variant.items() if k != "name"})
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            labels = ({VARIANT: variant["name"]} if variant else {}) | chosen
            if any(one.items() <= (own | labels).items() for one in excluded):
                continue
            yield labels, own | chosen


def _seeds(about: About) -> Sequence[int]:
    return range(about.seeds) if isinstance(about.seeds, int) else about.seeds


def _cell(
    file: File,
    labels: dict[str, Any],
    sets: dict[str, Any],
    seed: int,
    overrides: Sequence[str],
    beside: Path,
) -> Cell:
    base = dict(file.base)
    preset, named = base.pop("preset", None), base.pop("file", None)
    name = preset if named is None else str(beside / str(named))
    values = flat(base) | sets | {"seed": seed}
    keys = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    _, scenario = presets.resolve(name, [*keys, *overrides])
    return Cell(labels, prepare(scenario, file.study.name).scenario)


def _counted(cells: Sequence[Cell]) -> Iterator[tuple[Cell, int]]:
    seen: dict[str, int] = {}
    for cell in cells:
        seen[cell.id] = seen.get(cell.id, 0) + 1
        yield cell, seen[cell.id]


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
