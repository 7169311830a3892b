"""What a study runs: a base scenario under every combination of axes and variants and each seed."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fedenc.errors import FedencError, ScenarioError
from fedenc.scenario import Scenario, toml
from fedenc.scenario.sections import Count, NonNegative, Section
from simulations import presets
from simulations.experiment import prepare
from simulations.study.exhibits import Exhibit, Paper

FOLDER = Path(__file__).parent.parent / "studies"
VARIANT = "variant"  # the column that names variants, where they are not in groups
NETWORK = "transformation."  # keys of what only some methods have
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


class Attacks(Section):
    """What is tried on every run after it has finished; see ``fedenc attack``."""

    names: str = "quick"
    images: Count = 200  # uploads that are attacked
    public: Count = 2_000  # images of the attacker's own
    short: str | None = None  # names where the study is run at a part of its size; None: the same


class File(Section):
    """The content of a study's file."""

    study: About
    base: dict[str, Any] = Field(default_factory=dict)  # `preset` or `file`, and scenario keys
    axes: dict[str, Any] = Field(default_factory=dict)  # scenario key = list of values
    # Each: `name`, and scenario keys; or several such lists, by the name of the column of each.
    variants: tuple[dict[str, Any], ...] | dict[str, tuple[dict[str, Any], ...]] = ()
    exclude: tuple[dict[str, Any], ...] = ()  # combinations that are left out: column = value
    attacks: Attacks | None = None
    plots: tuple[Plot, ...] = ()
    paper: Paper | None = None  # that the study reproduces
    exhibits: tuple[Exhibit, ...] = ()  # its tables and figures

    @property
    def groups(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Variants by the column that names them."""
        if isinstance(self.variants, dict):
            return self.variants
        return {VARIANT: self.variants} if self.variants else {}


@dataclass(frozen=True)
class Cell:
    """One run to make.

    Attributes:
        labels: the values of axes and variant that make it differ from other cells.
        scenario: complete and valid.
        attacks: on the finished run, if any.
        changed: scenario keys that are not as the study's file has them, and their values there.
    """

    labels: Values
    scenario: Scenario
    attacks: Attacks | None = None
    changed: Values = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str:
        """Names its folder: the hash of all that decides the result, the seed, and the number of
        machines, which decides the speed."""
        machines = self.scenario.engine.machines
        where = "" if machines is None else f"-m{machines}"
        return f"{self.scenario.hash()[:12]}-s{self.scenario.seed}{where}"

    @property
    def settings(self) -> dict[str, Any]:
        """Every scenario key and its value, but for secrets."""
        plan = {} if self.attacks is None else {"attacks": self.attacks.model_dump()}
        return flat(self.scenario.dump(secret=False) | plan)

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
    attacks: Attacks | None = None

    @property
    def columns(self) -> list[str]:
        """The labels of all cells, in the order of the file."""
        return list(dict.fromkeys(label for cell in self.cells for label in cell.labels))


@dataclass(frozen=True)
class Scale:
    """A study at a part of its size: of the images of all owners, epochs, and attacked images.

    Attributes:
        share: above 0; 1 is the study as its file has it.
        images: that all owners have together at full size.
        queries: asked at full size for each condition.
    """

    share: float
    images: int
    queries: int

    LEAST = 1_000  # queries, so that an accuracy is good to about three points

    def overrides(self, scenario: Scenario) -> Iterator[str]:
        """What it changes in a scenario, as ``section.key=value``."""
        if self.share == 1:
            return
        owned = scenario.clients.images or self.images // scenario.clients.count
        yield f"clients.images={max(1, round(owned * self.share))}"
        yield f"inference.total={max(min(self.LEAST, self.queries), self._of(self.queries))}"
        yield f"training.scale={scenario.training.scale * self.share}"
        if scenario.encryption.keyless:
            yield f"transformation.scale={scenario.transformation.scale * self.share}"
            yield f"transformation.fraction={scenario.transformation.share() * self.share}"

    def attacks(self, plan: Attacks) -> Attacks:
        """A plan at this scale."""
        if self.share == 1:
            return plan
        images, public = self._of(plan.images), self._of(plan.public)
        names = plan.short or plan.names
        return plan.model_copy(update={"names": names, "images": images, "public": public})

    def _of(self, count: int) -> int:
        return max(min(50, count), round(count * self.share))


def names() -> list[str]:
    """All study presets, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def file(name: str) -> File:
    """The content of a study preset."""
    return _read(FOLDER / f"{name}.toml")


def load(
    name: str,
    overrides: Sequence[str] = (),
    *,
    scale: Scale | None = None,
    seeds: int | None = None,
) -> Design:
    """Read a study's file, or a preset, and make all of its cells.

    Args:
        overrides: ``section.key=value``, for all cells.
        scale: of its size; None: as it is.
        seeds: so many instead of the file's.

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
    attacks = file.attacks if file.attacks is None or scale is None else scale.attacks(file.attacks)
    plans = {} if file.attacks is None or attacks is None else _differing(file.attacks, attacks)
    cells, found = list[Cell](), dict[str, dict[str, None]]()
    for labels, sets in _combinations(file):
        for seed in _seeds(file.study) if seeds is None else range(seeds):
            try:
                name_, keys = _base(file, sets, seed, path.parent)
                scenario, changed = _scenario(name_, keys, overrides, scale)
                settled = prepare(scenario, file.study.name).scenario
                cells.append(Cell(labels, settled, attacks, changed | plans))
            except FedencError as error:
                where = ", ".join(f"{k} = {_short(v)}" for k, v in labels.items()) or "the base"
                for text in error.problems if isinstance(error, ScenarioError) else (str(error),):
                    found.setdefault(text, {})[where] = None
    problems = [_placed(text, list(where)) for text, where in found.items()]
    if not cells and not problems:
        problems.append("the study has no run left; exclude fewer combinations")
    set_for_all = [*_lines(flat(file.base)), *overrides]
    networks = any(cell.scenario.encryption.keyless for cell in cells)
    if cells and not networks and any(line.startswith(NETWORK) for line in set_for_all):
        problems.append(f"{NETWORK}* is set, but no run has the transformation network")
    repeated = dict.fromkeys(c.text for c, n in _counted(cells) if n > 1)
    problems += [f"{text} is the same run as another one" for text in repeated]
    if problems:
        raise ScenarioError(problems)
    about = file.study
    return Design(about.name, about.question, tuple(cells), file.plots, attacks)


def _placed(problem: str, where: Sequence[str]) -> str:
    """A problem, and the combinations that have it."""
    others = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return f"{where[0]}{others}: {problem}"


def _read(path: Path) -> File:
    try:
        values = toml(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ScenarioError(f"study file {path} cannot be read: {error}") from None
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
    for group, variants in file.groups.items():
        nameless = [i for i, variant in enumerate(variants) if "name" not in variant]
        problems += [f"{group} {i} has no name" for i in nameless]
    for (one, first), (other, second) in itertools.combinations(file.groups.items(), 2):
        both = _keys(first) & _keys(second)
        problems += [
            f"{key} is set by variants of {one!r} and of {other!r}" for key in sorted(both)
        ]
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
    for variants in itertools.product(*file.groups.values()):
        own = {key: value for variant in variants for key, value in _settings(variant).items()}
        names = {g: variant["name"] for g, variant in zip(file.groups, variants, strict=True)}
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            labels = names | chosen
            if any(one.items() <= (own | labels).items() for one in excluded):
                continue
            yield labels, own | chosen


def _settings(variant: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's scenario keys."""
    return flat({key: value for key, value in variant.items() if key != "name"})


def _keys(variants: Iterable[Mapping[str, Any]]) -> set[str]:
    return {key for variant in variants for key in _settings(variant)}


def _seeds(about: About) -> Sequence[int]:
    return range(about.seeds) if isinstance(about.seeds, int) else about.seeds


def _base(file: File, sets: Values, seed: int, beside: Path) -> tuple[str | None, list[str]]:
    """A preset's name or a file, and what the study sets over it."""
    base = dict(file.base)
    preset, named = base.pop("preset", None), base.pop("file", None)
    values = flat(base) | dict(sets) | {"seed": seed}
    return (preset if named is None else str(beside / str(named))), _lines(values)


def _scenario(
    name: str | None, keys: list[str], overrides: Sequence[str], scale: Scale | None
) -> tuple[Scenario, dict[str, Any]]:
    """A cell's scenario, and what the study's own has where it is changed."""
    asked = _resolved(name, keys)
    scaled = [] if scale is None else list(scale.overrides(asked))
    scenario = _resolved(name, [*keys, *scaled, *overrides])
    before, after = flat(asked.dump(secret=False)), flat(scenario.dump(secret=False))
    changed = {key: before.get(key) for key, value in after.items() if before.get(key) != value}
    return scenario, changed


def _resolved(name: str | None, lines: Sequence[str]) -> Scenario:
    """A scenario from a preset or file and ``section.key=value`` lines, of which those about the
    transformation network concern only methods that have one."""
    _, scenario = presets.resolve(name, [x for x in lines if not x.startswith(NETWORK)])
    return presets.resolve(name, lines)[1] if scenario.encryption.keyless else scenario


def _differing(before: Attacks, after: Attacks) -> dict[str, Any]:
    values = after.model_dump()
    return {f"attacks.{k}": v for k, v in before.model_dump().items() if values[k] != v}


def _lines(values: Values) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _counted(cells: Sequence[Cell]) -> Iterator[tuple[Cell, int]]:
    seen: dict[str, int] = {}
    for cell in cells:
        seen[cell.id] = seen.get(cell.id, 0) + 1
        yield cell, seen[cell.id]


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
