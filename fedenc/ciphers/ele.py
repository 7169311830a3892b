"""Extended learnable encryption (ELE): LE with a key for every block, then permuted blocks.

Madono, Tanaka, Onishi & Ogawa, "Block-wise scrambled image recognition using adaptation network",
arXiv 2001.07761.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.ciphers.blocks import check_padding, log2_factorial, padded, unpad
from fedenc.keys import Keystream
from fedenc.orbits import forms

BLOCK = 4


@dataclass(frozen=True)
class ELE(Cipher):
    """Reverse and permute the half-bytes of every block under its own key, then permute blocks.

    The layout of the P = 32·C positions of a block is that of ``functional.split_nibbles``. The
    published code scrambles before it permutes blocks. The paper's figure shows the other order,
    which gives the same ciphertexts with the keys of blocks in another order.

    Args:
        padding: ``edge`` repeats the last row and column up to whole blocks, ``none`` refuses.

    Key parts, in the order drawn, for M blocks (row by row, after padding):
        order: M permutations of the P positions.
        flips: M·P bits.
        places: one permutation of the blocks.
    """

    padding: str = "edge"
    name: ClassVar[str] = "ele"
    slice_scale: ClassVar[float] = 1 / 8  # its key takes 32 times as many bytes as the image

    def __post_init__(self) -> None:
        check_padding(self.padding)

    def output_shape(self, channels: int, height: int, width: int) -> Shape:
        return channels, *padded(height, width, BLOCK, self.padding)

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        count, positions = self._blocks(height, width), 2 * channels * BLOCK**2
        order = keystream.permutations(positions, count)
        flips = keystream.bits(count * positions).reshape(-1, count, positions)
        places = keystream.permutations(count, 1)[:, 0]
        return torch.from_numpy(order), torch.from_numpy(flips), torch.from_numpy(places)

    def layout(self, images: Tensor) -> Tensor:
        _, height, width = self.output_shape(*images.shape[1:])
        return functional.pad_edges(images, height, width)

    def canonical(self, images: Tensor) -> Tensor:
        return forms.ele(images)

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        order, flips, places = key
        full = self.layout(images)
        nibbles = functional.split_nibbles(functional.split_blocks(full, BLOCK))
        scrambled = functional.scramble_nibbles(nibbles, order, flips)
        permuted = functional.permute_blocks(scrambled, places)
        merged = functional.merge_nibbles(permuted, full.shape[1], BLOCK)
        return functional.merge_blocks(merged, *full.shape[2:])

    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        order, flips, places = key
        nibbles = functional.split_nibbles(functional.split_blocks(images, BLOCK))
        placed = functional.unpermute_blocks(nibbles, places)
        restored = functional.unscramble_nibbles(placed, order, flips)
        blocks = functional.merge_nibbles(restored, shape[0], BLOCK)
        return unpad(functional.merge_blocks(blocks, *images.shape[2:]), shape)

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        count, positions = self._blocks(height, width), 2 * channels * BLOCK**2
        return count * (log2_factorial(positions) + positions) + log2_factorial(count)

    def _blocks(self, height: int, width: int) -> int:
        rows, columns = padded(height, width, BLOCK, self.padding)
        return rows * columns // BLOCK**2
