"""Learnable image encryption (LE): half-bytes of 4×4 blocks, reversed and permuted.

Tanaka, "Learnable image encryption", IEEE ICCE-TW 2018. All blocks of an image share one key, so
one image shows many blocks under it; Chang & Case (arXiv 2004.13263) attack the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.ciphers.blocks import check_padding, log2_factorial, padded, unpad
from fedenc.errors import CipherError
from fedenc.keys import Keystream
from fedenc.orbits import forms

BLOCK = 4
COMPATIBLE = ("", "icce2018")


@dataclass(frozen=True)
class LE(Cipher):
    """Split bytes to half-bytes, reverse some positions of a block, permute the positions.

    The layout of the P = 32·C positions of a block is that of ``functional.split_nibbles``.

    Args:
        compat: ``icce2018`` does what the code published with the paper does: values are reversed
            both before and after the permutation, at the positions where its entry exceeds 48.
            Then only the permutation is secret.
        padding: ``edge`` repeats the last row and column up to whole blocks (as the published
            code does), ``none`` refuses.

    Key parts, in the order drawn:
        order: one permutation of the P positions.
        flips: P bits, unless compat.
    """

    compat: str = ""
    padding: str = "edge"
    name: ClassVar[str] = "le"

    def __post_init__(self) -> None:
        check_padding(self.padding)
        if self.compat not in COMPATIBLE:
            raise CipherError(f"compat is {self.compat!r}, expected 'icce2018' or nothing")

    def output_shape(self, channels: int, height: int, width: int) -> Shape:
        if self.compat and channels != 3:
            raise CipherError(
                f"compat={self.compat!r} needs images of 3 channels, found {channels}; convert "
                "them to RGB or leave compat out"
            )
        return channels, *padded(height, width, BLOCK, self.padding)

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        positions = 2 * channels * BLOCK**2
        order = keystream.permutations(positions, 1)  # (U, 1, P): the same for every block
        flips = published_flips(order) if self.compat else keystream.bits(positions)[:, None]
        return torch.from_numpy(order), torch.from_numpy(flips)

    def layout(self, images: Tensor) -> Tensor:
        _, height, width = self.output_shape(*images.shape[1:])
        return functional.pad_edges(images, height, width)

    def canonical(self, images: Tensor) -> Tensor:
        """As the base class says, for LE's own keys; ``icce2018`` has fewer of them, so there its
        ciphertexts share this form, but it need not be one of them, and may tell less than they do.
        """
        return forms.le(images)

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        full = self.layout(images)
        nibbles = functional.split_nibbles(functional.split_blocks(full, BLOCK))
        scrambled = functional.scramble_nibbles(nibbles, *key)
        merged = functional.merge_nibbles(scrambled, full.shape[1], BLOCK)
        return functional.merge_blocks(merged, *full.shape[2:])

    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        nibbles = functional.split_nibbles(functional.split_blocks(images, BLOCK))
        blocks = functional.merge_nibbles(
            functional.unscramble_nibbles(nibbles, *key), shape[0], BLOCK
        )
        return unpad(functional.merge_blocks(blocks, *images.shape[2:]), shape)

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        positions = 2 * channels * BLOCK**2
        return log2_factorial(positions) + (0 if self.compat else positions)


def published_flips(order: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The reversals of the published code, combined into one before the permutation.

    With r = (order > 48) it computes ``out = 15·r XOR (15·r XOR in)[order]``, so input position
    order[j] is reversed where r[order[j]] and r[j] differ.

    Args:
        order: permutations of range(96), (..., 96).
    """
    reversed_ = order > 48
    differ = np.take_along_axis(reversed_, order, axis=-1) ^ reversed_
    flips = np.empty(order.shape, np.uint8)
    np.put_along_axis(flips, order, differ.astype(np.uint8), axis=-1)
    return flips
