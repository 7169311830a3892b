"""Ready-made scenarios: the TOML files in ``presets/`` beside this module."""

from collections.abc import Sequence
from pathlib import Path

from fedenc.errors import ScenarioError
from fedenc.scenario import Scenario, load

FOLDER = Path(__file__).parent / "presets"
DEFAULT = "photos"


def names() -> list[str]:
    """All presets, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def describe(name: str) -> str:
    """The first comment line of a preset."""
    first = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip()


def resolve(name: str | None, overrides: Sequence[str]) -> tuple[str, Scenario]:
    """A preset's name or a TOML file, with overrides, as (short name, scenario).

    Raises:
        ScenarioError: no such preset or file, or a scenario with problems.
    """
    from simulations.checks import unknown_names  # torch, which listing presets does not need

    name = name or DEFAULT
    if name in names():
        return name, load(FOLDER / f"{name}.toml", overrides, check=unknown_names)
    if name.endswith(".toml") or Path(name).exists():
        return Path(name).stem, load(name, overrides, check=unknown_names)
    raise ScenarioError(
        f"no preset or scenario file {name!r}; presets are {', '.join(names())}, files end in .toml"
    )
