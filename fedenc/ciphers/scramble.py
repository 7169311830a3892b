"""Block scrambling: a permutation of an image's blocks, meant for several views of an image.

Chuman & Kiya, "Block scrambling image encryption used in combination with data augmentation for
privacy-preserving DNNs", 2021. At 32×32 pixels with blocks of 8×8 there are only 16! = 2^44.25
keys. Blocks keep their content, which solvers of jigsaw puzzles can use (Chuman, Kurihara & Kiya,
IEICE Trans. Inf. & Syst. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.ciphers.blocks import (
    check_block_size,
    check_padding,
    log2_factorial,
    padded,
    unpad,
)
from fedenc.keys import Keystream
from fedenc.orbits import forms


@dataclass(frozen=True)
class Scramble(Cipher):
    """Permute the blocks.

    Args:
        block_size: pixels a side: 4, 8 or 16.
        padding: ``edge`` repeats the last row and column up to whole blocks, ``none`` refuses.

    Key parts:
        order: one permutation of the M blocks (row by row, after padding).
    """

    block_size: int = 8
    padding: str = "edge"
    name: ClassVar[str] = "scramble"
    augmentations: ClassVar[tuple[str, ...]] = ("flip",)

    def __post_init__(self) -> None:
        check_block_size(self.block_size)
        check_padding(self.padding)

    def output_shape(self, channels: int, height: int, width: int) -> Shape:
        return channels, *padded(height, width, self.block_size, self.padding)

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        order = keystream.permutations(self._blocks(height, width), 1)[:, 0]
        return (torch.from_numpy(order),)

    def layout(self, images: Tensor) -> Tensor:
        _, height, width = self.output_shape(*images.shape[1:])
        return functional.pad_edges(images, height, width)

    def canonical(self, images: Tensor) -> Tensor:
        return forms.scramble(images, block_size=self.block_size)

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        full = self.layout(images)
        permuted = functional.permute_blocks(functional.split_blocks(full, self.block_size), key[0])
        return functional.merge_blocks(permuted, *full.shape[2:])

    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        blocks = functional.split_blocks(images, self.block_size)
        restored = functional.unpermute_blocks(blocks, key[0])
        return unpad(functional.merge_blocks(restored, *images.shape[2:]), shape)

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        return log2_factorial(self._blocks(height, width))

    def _blocks(self, height: int, width: int) -> int:
        rows, columns = padded(height, width, self.block_size, self.padding)
        return rows * columns // self.block_size**2
