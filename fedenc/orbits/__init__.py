"""Canonical forms of images: what a cipher cannot change, computed without any key.

Every keyed cipher here but ``logistic-rc4`` is a finite group that acts on images by moving and
complementing values; the key picks the element. All ciphertexts of an image are its *orbit*. Each
orbit has one canonical representative, and ``canonical`` computes it from any image of the orbit:

    canonical(encrypt(x, key)) == canonical(layout(x))      for every key, bit for bit

It is a maximal invariant of the action (Lehmann & Romano, "Testing statistical hypotheses",
chapter 6): two images have the same one if and only if some key takes one to the other. Under an
independent, uniform key for each image a ciphertext is uniform on the orbit, so this is exactly
what it tells anyone.

Nothing here knows a key or imports ``fedenc.ciphers``, except to look up a plug-in; torch is
imported only when a form is asked for.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from fedenc.plugins import Parameter

if TYPE_CHECKING:
    from torch import Tensor

Canonical = Callable[["Tensor"], "Tensor"]

_FORMS = ("none", "pixel", "etc", "etc-gray", "scramble", "le", "ele")
FORMLESS = ("logistic-rc4",)  # built-in ciphers without a canonical form
_BLOCK = 4  # pixels a side, of the ciphers that leave no choice


def canonical(cipher: str, params: Mapping[str, Parameter]) -> Canonical | None:
    """The function that computes a cipher's canonical form.

    Args:
        cipher: its name. A name that is not built in is looked up among installed ciphers.
        params: its public parameters in full, as ``Cipher.params`` gives them.

    Returns:
        uint8 (N, C, H, W), in the shape of ciphertexts, to new uint8 of the same shape; None if
        the cipher has no such form.

    Raises:
        CipherError: no cipher has this name, or it does not take these parameters.
    """
    if cipher in FORMLESS:
        return None
    if cipher in _FORMS:
        from fedenc.orbits import forms

        return forms.form(cipher, params)
    from fedenc.ciphers.base import Cipher
    from fedenc.ciphers.registry import make

    found = make(cipher, **params)
    if type(found).canonical is Cipher.canonical:
        return None
    return cast(Canonical, found.canonical)


def block_size(params: Mapping[str, Parameter]) -> int:
    """The side, in pixels, of the blocks that a cipher with these public parameters works on; 4 for
    one that leaves no choice or has no blocks."""
    return int(params.get("block_size", _BLOCK))
