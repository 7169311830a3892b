"""A chaotic logistic map and RC4: a conventional pixel cipher, as a negative control.

A reconstruction after the title and the descriptions that others give of Gaata & Hantoosh, "An
efficient image encryption technique using chaotic logistic map and RC4 stream cipher"; the paper's
own text was not available. RC4's keystream is biased, and TLS must not use it any more (RFC 7465);
it is here because the method names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
from cryptography.hazmat.primitives.ciphers import Cipher as StreamCipher
from torch import Tensor

from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.errors import CipherError
from fedenc.keys import Keystream

BURN_IN = 100
START_BITS = 52  # what a double resolves of a number in [0, 1)
RC4_KEY_BYTES = 16
DROP_LIMIT = 1 << 16  # bytes; RC4-drop[n] is used with at most some thousands
RATE_RANGE = (3.57, 4.0)  # where the map is chaotic


@dataclass(frozen=True)
class LogisticRC4(Cipher):
    """Permute the pixels by the order of a chaotic orbit, then XOR the bytes with RC4.

    Args:
        drop: bytes of RC4's output to discard first (RC4-drop[n]).

    Drawn, in this order: the orbit's start x₀ and rate r (two integers below 2⁵²), and an RC4 key
    of 16 bytes. Key parts made of them:
        order: the permutation of pixels that sorts the orbit.
        pad: C·H·W bytes of RC4 (the R plane row by row, then G, then B).
    """

    drop: int = 0
    name: ClassVar[str] = "logistic-rc4"
    slice_scale: ClassVar[float] = 2  # each step of the orbits serves all images of a slice

    def __post_init__(self) -> None:
        if (
            isinstance(self.drop, bool)
            or not isinstance(self.drop, int)
            or not (0 <= self.drop <= DROP_LIMIT)
        ):
            raise CipherError(
                f"drop is {self.drop!r}, expected a number of bytes, 0 to {DROP_LIMIT}"
            )

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        pixels = height * width
        seeds = keystream.integers(1 << START_BITS, 2)
        low, high = RATE_RANGE
        start = (seeds[:, 0] + 0.5) * 2.0**-START_BITS
        rate = low + (high - low) * (seeds[:, 1] * 2.0**-START_BITS)
        order = np.argsort(logistic_orbit(start, rate, pixels), axis=1, kind="stable")
        pad = rc4(keystream.bytes(RC4_KEY_BYTES), channels * pixels, self.drop)
        return (
            torch.from_numpy(order),
            torch.from_numpy(pad).reshape(-1, channels, height, width),
        )

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        return functional.permute_pixels(images, key[0]) ^ key[1]

    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        return functional.unpermute_pixels(images ^ key[1], key[0])

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        """Nominal: the orbit's numbers and the RC4 key; few pixels have fewer permutations."""
        return 2.0 * START_BITS + 8 * RC4_KEY_BYTES


def logistic_orbit(
    start: npt.NDArray[np.float64], rate: npt.NDArray[np.float64], length: int
) -> npt.NDArray[np.float64]:
    """``x ← r·x·(1 − x)`` after 100 steps of burn-in: float64 (U,) and (U,) to (U, length)."""
    state = start.astype(np.float64)
    orbit = np.empty((length, start.size))
    for step in range(BURN_IN + length):
        state = rate * state * (1.0 - state)
        if step >= BURN_IN:
            orbit[step - BURN_IN] = state
    return np.ascontiguousarray(orbit.T)


def rc4(keys: npt.NDArray[np.uint8], length: int, drop: int = 0) -> npt.NDArray[np.uint8]:
    """RC4 keystreams: uint8 keys (U, 16) to uint8 (U, length), after dropping bytes.

    Raises:
        CipherError: the OpenSSL in use was built without RC4.
    """
    out = np.empty((len(keys), drop + length), np.uint8)
    zeros = bytes(drop + length)
    try:
        for row, key in zip(out, keys, strict=True):
            StreamCipher(ARC4(key.tobytes()), mode=None).encryptor().update_into(zeros, row.data)
    except UnsupportedAlgorithm as error:
        raise CipherError(
            "logistic-rc4 needs RC4, which this OpenSSL leaves out; use another cipher, or unset "
            "CRYPTOGRAPHY_OPENSSL_NO_LEGACY"
        ) from error
    return out[:, drop:]
