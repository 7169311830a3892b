"""Plain frozen dataclasses of settings, checked so that all their problems are told at once."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from fedenc.errors import TrainingError

Rule = tuple[str, bool, str]  # a field, whether its value is in range, and what is expected


def check(what: str, settings: object, rules: Iterable[Rule]) -> None:
    """TrainingError that lists every field whose value is out of range; ``what`` they are of."""
    problems = [
        f"{name} is {getattr(settings, name)!r}; expected {expected}"
        for name, good, expected in rules
        if not good
    ]
    if problems:
        raise TrainingError(f"{what}: {'; '.join(problems)}")


def plain(settings: Any) -> dict[str, Any]:
    """The values of a dataclass by field, for JSON: tuples become lists."""
    values = dataclasses.asdict(settings).items()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}
