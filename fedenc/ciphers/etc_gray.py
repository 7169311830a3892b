"""Grayscale-based EtC: Y, Cb and Cr become one gray image, and its blocks are scrambled.

Chuman, Sirichotedumrong & Kiya, "Encryption-then-compression systems using grayscale-based image
encryption for JPEG images", IEEE Trans. Information Forensics and Security 2019.
"""

from __future__ import annotations

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

SUBSAMPLINGS = ("4:4:4", "4:2:0")


@dataclass(frozen=True)
class EtCGray(Cipher):
    """Join the YCbCr planes of an RGB image to one gray image, then scramble its blocks.

    At 4:4:4 the planes are placed below each other, (1, 3·H, W). At 4:2:0 the chroma planes are
    means of 2×2 pixels and are placed side by side below Y, (1, 1.5·H, W). The published method
    does not fix an arrangement; it makes no difference, as blocks are permuted.

    Decryption is not exact: YCbCr rounds, so values differ by up to 2 at 4:4:4, and lose chroma
    detail at 4:2:0.

    Args:
        block_size: pixels a side: 4, 8 or 16.
        subsampling: ``4:4:4`` or ``4:2:0``.
        padding: ``edge`` repeats the last row and column up to whole blocks of every plane,
            ``none`` refuses.

    Key parts, in the order drawn, for M blocks of the gray image (row by row):
        order: one permutation of the blocks.
        turns: M integers below 8, for rotation and mirroring.
        flips: M bits.
    """

    block_size: int = 8
    subsampling: str = "4:4:4"
    padding: str = "edge"
    name: ClassVar[str] = "etc-gray"
    augmentations: ClassVar[tuple[str, ...]] = ("flip",)
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_block_size(self.block_size)
        check_padding(self.padding)
        if self.subsampling not in SUBSAMPLINGS:
            raise CipherError(
                f"subsampling is {self.subsampling!r}, expected one of {', '.join(SUBSAMPLINGS)}"
            )

    def output_shape(self, channels: int, height: int, width: int) -> Shape:
        if channels != 3:
            raise CipherError(
                f"{self.name} needs images of 3 channels, found {channels}; convert them to RGB "
                "or use etc with color_shuffle=False"
            )
        rows, columns = self._padded(height, width)
        return 1, rows * 3 // self._share, columns

    def plain_shape(self, channels: int, height: int, width: int) -> Shape:
        return 3, height * self._share // 3, width

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        return blocks.draw_scrambling(keystream, self._blocks(height, width))

    def layout(self, images: Tensor) -> Tensor:
        """Pad, convert to YCbCr and join the planes."""
        full = functional.pad_edges(images, *self._padded(*images.shape[2:]))
        return self._join(functional.rgb_to_ycbcr(full))

    def canonical(self, images: Tensor) -> Tensor:
        return forms.etc(images, block_size=self.block_size, color_shuffle=False)

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        gray = self.layout(images)
        scrambled = blocks.scramble(functional.split_blocks(gray, self.block_size), key)
        return functional.merge_blocks(scrambled, *gray.shape[2:])

    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        restored = blocks.unscramble(functional.split_blocks(images, self.block_size), key)
        gray = functional.merge_blocks(restored, *images.shape[2:])
        return blocks.unpad(functional.ycbcr_to_rgb(self._part(gray)), shape)

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        return blocks.scrambling_key_space_log2(self._blocks(height, width))

    @property
    def _halved(self) -> bool:
        return self.subsampling == "4:2:0"

    @property
    def _share(self) -> int:
        """The gray image has 3 / share times as many rows as the colour image."""
        return 2 if self._halved else 1

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        return padded(height, width, self.block_size * self._share, self.padding)

    def _blocks(self, height: int, width: int) -> int:
        rows, columns = self._padded(height, width)
        return rows * 3 // self._share * columns // self.block_size**2

    def _join(self, planes: Tensor) -> Tensor:
        """(N, 3, H, W) of Y, Cb, Cr to the gray image (N, 1, 3·H or 1.5·H, W)."""
        count, _, height, width = planes.shape
        if not self._halved:
            return planes.reshape(count, 1, 3 * height, width)
        quads = planes[:, 1:].reshape(count, 2, height // 2, 2, width // 2, 2).to(torch.int32)
        chroma = ((quads.sum(dim=(3, 5), dtype=torch.int32) + 2) >> 2).to(torch.uint8)
        beside = chroma.permute(0, 2, 1, 3).reshape(count, 1, height // 2, width)
        return torch.cat((planes[:, :1], beside), dim=2)

    def _part(self, gray: Tensor) -> Tensor:
        """Undo ``_join``; chroma at 4:2:0 is repeated over its 2×2 pixels."""
        count, _, rows, width = gray.shape
        height = rows * self._share // 3
        if not self._halved:
            return gray.reshape(count, 3, height, width)
        beside = gray[:, 0, height:].reshape(count, height // 2, 2, width // 2)
        chroma = beside.permute(0, 2, 1, 3)
        full = chroma.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return torch.cat((gray[:, :, :height], full), dim=1)
