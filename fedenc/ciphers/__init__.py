"""Image encryption: (images, keystream) -> images. ``registry`` knows the ciphers by name."""

from typing import TYPE_CHECKING, Any

from fedenc.ciphers.registry import make, names

if TYPE_CHECKING:
    from fedenc.ciphers.base import Cipher

__all__ = ["Cipher", "make", "names"]


def __getattr__(name: str) -> Any:
    if name == "Cipher":  # imported on demand: it needs torch, and the list of names does not
        from fedenc.ciphers.base import Cipher

        return Cipher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
