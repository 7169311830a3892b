"""No encryption: the baseline, and what a participant that stays plain uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.keys import Keystream
from fedenc.orbits import forms


@dataclass(frozen=True)
class NoCipher(Cipher):
    """Identity; draws nothing."""

    name: ClassVar[str] = "none"
    augmentations: ClassVar[tuple[str, ...]] = ("any",)

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        return ()

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        return images.clone()

    def canonical(self, images: Tensor) -> Tensor:
        return forms.none(images)

    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        return images.clone()

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        return 0.0
