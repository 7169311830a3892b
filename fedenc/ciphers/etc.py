"""Block-based encryption-then-compression (EtC) for colour images.

Kurihara, Kikuchi, Imaizumi, Shiota & Kiya, "An encryption-then-compression system for JPEG/motion
JPEG standard", IEICE Trans. Fundamentals 2015. Blocks keep their texture, which solvers of jigsaw
puzzles can use (Chuman, Kurihara & Kiya, IEICE Trans. Inf. & Syst. 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.ciphers import blocks, functional
from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.ciphers.blocks import check_block_size, check_padding, padded
from fedenc.errors import CipherError
from fedenc.keys import Keystream
from fedenc.orbits import forms

COLOR_ORDERS = 6


@dataclass(frozen=True)
class EtC(Cipher):
    """Permute blocks, then turn, invert and shuffle the colours of each.

    Args:
        block_size: pixels a side: 4, 8 or 16.
        color_shuffle: the colour step; needs images of three channels.
        padding: ``edge`` repeats the last row and column up to whole blocks, ``none`` refuses.

    Key parts, in the order drawn, for M blocks (row by row, after padding):
        order: one permutation of the blocks.
        turns: M integers below 8, for rotation and mirroring.
        flips: M bits; each inverts all channels of a block.
        codes: M integers below 6, if color_shuffle.
    """

    block_size: int = 4
    color_shuffle: bool = True
    padding: str = "edge"
    name: ClassVar[str] = "etc"
    augmentations: ClassVar[tuple[str, ...]] = ("flip",)

    def __post_init__(self) -> None:
        check_block_size(self.block_size)
        check_padding(self.padding)
        if not isinstance(self.color_shuffle, bool):
            raise CipherError(f"color_shuffle is {self.color_shuffle!r}, expected true or false")

    def output_shape(self, channels: int, height: int, width: int) -> Shape:
        if self.color_shuffle and channels != 3:
            raise CipherError(
                f"color_shuffle needs images of 3 channels, found {channels}; convert them to RGB "
                "or pass color_shuffle=False"
            )
        return channels, *padded(height, width, self.block_size, self.padding)

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        count = self._blocks(height, width)
        scrambling = blocks.draw_scrambling(keystream, count)
        if not self.color_shuffle:
            return scrambling
        return *scrambling, torch.from_numpy(keystream.integers(COLOR_ORDERS, count))

    def layout(self, images: Tensor) -> Tensor:
        _, height, width = self.output_shape(*images.shape[1:])
        return functional.pad_edges(images, height, width)

    def canonical(self, images: Tensor) -> Tensor:
        return forms.etc(images, block_size=self.block_size, color_shuffle=self.color_shuffle)

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        full = self.layout(images)
        parts = blocks.scramble(functional.split_blocks(full, self.block_size), key[:3])
        if self.color_shuffle:
            parts = functional.shuffle_block_colors(parts, key[3])
        return functional.merge_blocks(parts, *full.shape[2:])

    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        parts = functional.split_blocks(images, self.block_size)
        if self.color_shuffle:
            parts = functional.unshuffle_block_colors(parts, key[3])
        restored = blocks.unscramble(parts, key[:3])
        return blocks.unpad(functional.merge_blocks(restored, *images.shape[2:]), shape)

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        count = self._blocks(height, width)
        colors = math.log2(COLOR_ORDERS) if self.color_shuffle else 0.0
        return blocks.scrambling_key_space_log2(count) + colors * count

    def _blocks(self, height: int, width: int) -> int:
        rows, columns = padded(height, width, self.block_size, self.padding)
        return rows * columns // self.block_size**2
