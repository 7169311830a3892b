"""Registries of classes by name: built-in ones, and those that installed packages add.

A package adds one by an entry point whose name is the class's own and whose value is the class::

    [project.entry-points."fedenc.ciphers"]
    mine = "my_package.mine:Mine"

What is registered is a frozen dataclass: its fields are its public parameters.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar, Generic, Protocol, TypeVar

from fedenc.errors import FedencError

Parameter = bool | int | float | str


class Named(Protocol):
    """What every registered class has: its name in the registry."""

    name: ClassVar[str]


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """Classes of one kind by name; nothing is imported before it is asked for.

    Args:
        kind: what one of them is called in messages, such as ``cipher``.
        built_in: ``module:Class`` by name.
        base: gives the class that all of them extend.
        error: raised for what a user can cause.
    """

    def __init__(
        self,
        kind: str,
        built_in: Mapping[str, str],
        base: Callable[[], type[T]],
        error: type[FedencError],
    ) -> None:
        self._kind, self._built_in, self._base, self._error = kind, built_in, base, error
        self.find = cache(self._find)

    @property
    def group(self) -> str:
        """The entry points' group."""
        return f"fedenc.{self._kind}s"

    def names(self) -> tuple[str, ...]:
        """Every name that is known: built-in ones first, then plug-ins by name."""
        return (*self._built_in, *sorted(self._plug_ins.keys() - self._built_in.keys()))

    def make(self, name: str, **params: Parameter) -> T:
        """Build one of them.

        Args:
            name: one of ``names()``.
            **params: its public parameters; those left out take their defaults.

        Raises:
            FedencError: no such name, no such parameter, or a value it cannot take.
        """
        cls = self.find(name)
        known = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
        for key, value in params.items():
            if key not in known:
                takes = ", ".join(known) if known else "no parameters"
                raise self._error(
                    f"{self._kind} {name!r} has no parameter {key!r} (found {key}={value!r}); "
                    f"it takes {takes}"
                )
            kind = getattr(known[key].type, "__name__", known[key].type)  # a class, or its name
            if not _is(kind, value):
                number = "a whole number" if kind == "int" else "a number"
                raise self._error(f"{key} is {value!r}, expected {number} ({self._kind} {name!r})")
        return cls(**params)

    def _find(self, name: str) -> type[T]:
        """The class behind a name.

        Raises:
            FedencError: no such name, or a plug-in that cannot be loaded or is something else.
        """
        base = self._base()
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            found: object = getattr(importlib.import_module(module), attribute)
        elif name in self._plug_ins:
            try:
                found = self._plug_ins[name].load()
            except Exception as error:
                text = f"plug-in {self._kind} {name!r} does not load: {error}"
                raise self._error(text) from error
        else:
            known = ", ".join(self.names())
            raise self._error(f"there is no {self._kind} {name!r}; known are {known}")
        fits = isinstance(found, type) and issubclass(found, base)
        if not (fits and dataclasses.is_dataclass(found)):
            raise self._error(
                f"plug-in {self._kind} {name!r} is {found!r}; expected a dataclass that extends "
                f"{self.group}.{base.__name__}"
            )
        cls: type[T] = found  # type: ignore[assignment]
        if cls.name != name:
            what = f"{_article(self._kind)} {self._kind}"
            raise self._error(f"plug-in {name!r} holds {what} that calls itself {cls.name!r}")
        return cls

    @cached_property
    def _plug_ins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


def _is(kind: object, value: Parameter) -> bool:
    """Whether a value is a number where one is annotated; other types check themselves. Truth
    values are numbers to Python, and to nobody else."""
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return kind != "float" or (isinstance(value, int | float) and not isinstance(value, bool))


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
