"""Pixel-based image encryption: negative-positive transformation and colour shuffling.

Sirichotedumrong, Kinoshita & Kiya, "Pixel-based image encryption without key management for
privacy-preserving deep neural networks", IEEE Access 2019.

Under independent keys for every image the ciphertext still shows ``sort_c |p − 127.5|`` of every
pixel to anyone. Under one key for many images, an image known both plain and encrypted reveals much
of the key; Chang & Case (arXiv 2004.13263) attack both cases. This is visual protection, not
confidentiality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.errors import CipherError
from fedenc.keys import Keystream
from fedenc.keys.keystream import integer_bytes
from fedenc.orbits import forms

COLOR_ORDERS = 6


@dataclass(frozen=True)
class Pixel(Cipher):
    """NP with an independent bit for every byte, then CS with an independent code for every pixel.

    Args:
        color_shuffle: colour shuffling after NP; needs images of three channels.

    Key parts, in the order drawn:
        flips: C·H·W bits, as 0 or 255 (the R plane row by row, then G, then B).
        codes: H·W integers below 6 (row by row), if color_shuffle.
    """

    color_shuffle: bool = True
    name: ClassVar[str] = "pixel"
    augmentations: ClassVar[tuple[str, ...]] = ("flip", "shift", "crop")
    slice_scale: ClassVar[float] = 2  # it takes many short steps

    def __post_init__(self) -> None:
        if not isinstance(self.color_shuffle, bool):
            raise CipherError(f"color_shuffle is {self.color_shuffle!r}, expected true or false")

    def output_shape(self, channels: int, height: int, width: int) -> Shape:
        if self.color_shuffle and channels != 3:
            raise CipherError(
                f"color_shuffle needs images of 3 channels, found {channels}; convert them to RGB "
                "or pass color_shuffle=False"
            )
        return channels, height, width

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        pixels = height * width
        if not self.color_shuffle:
            flips = keystream.masks(channels * pixels)
            return (torch.from_numpy(flips).reshape(-1, channels, height, width),)
        keystream.prefetch(-(-channels * pixels // 8) + integer_bytes(COLOR_ORDERS, pixels))
        flips = keystream.masks(channels * pixels)
        codes = keystream.integers(COLOR_ORDERS, pixels)
        return (
            torch.from_numpy(flips).reshape(-1, channels, height, width),
            torch.from_numpy(codes).reshape(-1, height, width),
        )

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        return self.apply_into(images, key, torch.empty_like(images))

    def apply_into(self, images: Tensor, key: KeyParts, out: Tensor) -> Tensor:
        functional.negative_positive(images, key[0], out=out)
        return functional.color_shuffle_(out, key[1]) if self.color_shuffle else out

    def canonical(self, images: Tensor) -> Tensor:
        return forms.pixel(images, color_shuffle=self.color_shuffle)

    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        restored = functional.color_unshuffle(images, key[1]) if self.color_shuffle else images
        return functional.negative_positive(restored, key[0])

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        orders = math.log2(COLOR_ORDERS) if self.color_shuffle else 0.0
        return channels * height * width + orders * height * width
