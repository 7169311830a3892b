"""Attacks on protected images: (what an attacker observes) -> what he can make of it.

``registry`` knows the attacks by name.
"""

from typing import TYPE_CHECKING, Any

from fedenc.attacks.registry import make, names

if TYPE_CHECKING:
    from fedenc.attacks.base import Attack

__all__ = ["Attack", "make", "names"]


def __getattr__(name: str) -> Any:
    if name == "Attack":  # imported on demand: it needs torch, and the list of names does not
        from fedenc.attacks.base import Attack

        return Attack
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
