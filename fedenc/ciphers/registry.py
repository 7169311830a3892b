"""Ciphers by name: built-in ones, and those that installed packages add.

A package adds a cipher by an entry point in the group ``fedenc.ciphers`` whose name is the
cipher's and whose value is its class::

    [project.entry-points."fedenc.ciphers"]
    mine = "my_package.mine:Mine"
"""

from __future__ import annotations

import dataclasses
import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from fedenc.errors import CipherError

if TYPE_CHECKING:
    from fedenc.ciphers.base import Cipher, Parameter

GROUP = "fedenc.ciphers"

_BUILT_IN = {
    "none": "fedenc.ciphers.none:NoCipher",
    "pixel": "fedenc.ciphers.pixel:Pixel",
    "etc": "fedenc.ciphers.etc:EtC",
    "etc-gray": "fedenc.ciphers.etc_gray:EtCGray",
    "le": "fedenc.ciphers.le:LE",
    "ele": "fedenc.ciphers.ele:ELE",
    "logistic-rc4": "fedenc.ciphers.logistic_rc4:LogisticRC4",
    "scramble": "fedenc.ciphers.scramble:Scramble",
}


def names() -> tuple[str, ...]:
    """Every cipher that ``make`` knows: built-in ones first, then plug-ins by name."""
    return (*_BUILT_IN, *sorted(_plug_ins().keys() - _BUILT_IN.keys()))


def make(name: str, **params: Parameter) -> Cipher:
    """Build a cipher.

    Args:
        name: one of ``names()``.
        **params: the cipher's public parameters; those left out take their defaults.

    Raises:
        CipherError: no such cipher, no such parameter, or a value it cannot take.
    """
    cls = cipher_class(name)
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key, value in params.items():
        if key not in known:
            takes = ", ".join(known) if known else "no parameters"
            raise CipherError(
                f"cipher {name!r} has no parameter {key!r} (found {key}={value!r}); "
                f"it takes {takes}"
            )
    return cls(**params)


@cache
def cipher_class(name: str) -> type[Cipher]:
    """The class behind a name.

    Raises:
        CipherError: no such cipher, or a plug-in that cannot be loaded or is no cipher.
    """
    from fedenc.ciphers.base import Cipher

    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found: object = getattr(importlib.import_module(module), attribute)
    elif name in _plug_ins():
        try:
            found = _plug_ins()[name].load()
        except Exception as error:
            raise CipherError(f"plug-in cipher {name!r} does not load: {error}") from error
    else:
        raise CipherError(f"there is no cipher {name!r}; known are {', '.join(names())}")
    if not (
        isinstance(found, type) and issubclass(found, Cipher) and dataclasses.is_dataclass(found)
    ):
        raise CipherError(
            f"plug-in cipher {name!r} is {found!r}; expected a dataclass that extends "
            "fedenc.ciphers.Cipher"
        )
    if found.name != name:
        raise CipherError(f"plug-in {name!r} holds a cipher that calls itself {found.name!r}")
    return found


@cache
def _plug_ins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
