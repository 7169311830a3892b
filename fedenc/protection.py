"""What a participant does to images before they leave it: nothing, a cipher, or a shared network.

All other code (populations, the provider's rules and view, results, the console) uses only the
public side of a protection: its name, its parameters, the shape of protected images, and what a
server may do to them.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedenc.ciphers.base import Cipher
from fedenc.keys import KeyRing, Policy
from fedenc.shard import UNPROTECTED, ParamValue
from fedenc.transformation.bundle import Transformation

_SHARED = {
    "same": "one key for everybody",
    "client": "one key per participant",
    "image": "an independent key for every image",
}


@dataclass(frozen=True)
class Context:
    """What a batch of N images is protected for: everything that keys depend on.

    Attributes:
        purpose: ``"train"`` or ``"query"``; each has keys of its own.
        nonce: public, 16 bytes, new for every upload or query batch.
        ids: int64 (N,), the participant's own numbers for the images.
        views: which ciphertext of each image: one number, or int64 (N,).
        independent: each image under a key of its own, under any key policy.
    """

    purpose: str
    nonce: bytes
    ids: npt.NDArray[np.int64]
    views: npt.NDArray[np.int64] | int = 0
    independent: bool = False


class Protection(Protocol):
    """One way to protect images."""

    @property
    def name(self) -> str:
        """The name of the cipher in a shard's manifest."""

    @property
    def policy(self) -> Policy | None:
        """Which images share a key; None where there are no keys."""

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The key policies that make sense for it; empty where there are no keys."""

    @property
    def augmentations(self) -> tuple[str, ...]:
        """What a server may do to protected images, in the words of ``Cipher.augmentations``."""

    def params(self) -> dict[str, ParamValue]:
        """Public parameters: what a provider may know and check."""

    def output_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """The shape (C, H, W) of a protected image of this plain shape.

        Raises:
            CipherError, TransformationError: images of this shape cannot be protected.
        """

    def protect(self, images: Tensor, context: Context) -> Tensor:
        """uint8 (N, C, H, W) to uint8 (N, *output_shape(C, H, W)), a function of its arguments."""

    def plain(self) -> "Plain":
        """How images are sent plain to a provider that expects protected ones."""

    def __str__(self) -> str:
        """A description for people."""


@dataclass(frozen=True)
class Plain:
    """No protection: the baseline, and the choice of participants that upload plain images.

    Attributes:
        cipher: what the provider's other images are protected by. Images are brought into its
            public layout, so that one model takes both; None: they stay as they are.
    """

    cipher: Cipher | None = None
    name: ClassVar[str] = UNPROTECTED[0]
    policy: ClassVar[Policy | None] = None
    policies: ClassVar[tuple[Policy, ...]] = ()
    augmentations: ClassVar[tuple[str, ...]] = ("any",)

    def params(self) -> dict[str, ParamValue]:
        return dict(UNPROTECTED[1])

    def output_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        if self.cipher is None:
            return channels, height, width
        return self.cipher.output_shape(channels, height, width)

    def protect(self, images: Tensor, context: Context) -> Tensor:
        return images if self.cipher is None else self.cipher.layout(images)

    def plain(self) -> "Plain":
        return self

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True)
class Keyed:
    """A cipher under a participant's keys, shared between images as the policy says."""

    cipher: Cipher
    ring: KeyRing
    policy: Policy

    @property
    def name(self) -> str:
        return self.cipher.name

    @property
    def policies(self) -> tuple[Policy, ...]:
        return self.cipher.policies

    @property
    def augmentations(self) -> tuple[str, ...]:
        return self.cipher.augmentations

    def params(self) -> dict[str, ParamValue]:
        return self.cipher.params()

    def output_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return self.cipher.output_shape(channels, height, width)

    def protect(self, images: Tensor, context: Context) -> Tensor:
        keystream = self.ring.keystream(
            method=self.cipher.name,
            policy="image" if context.independent else self.policy,
            purpose=context.purpose,
            nonce=context.nonce,
            ids=context.ids,
            views=context.views,
        )
        return self.cipher.encrypt(images, keystream)

    def plain(self) -> Plain:
        return Plain(self.cipher)

    def __str__(self) -> str:
        return f"{self.name}, {_SHARED[self.policy]}"


@dataclass(frozen=True)
class Network:
    """The shared transformation network: the same for all images and participants, without keys.

    It keeps the place of every pixel, so a server may shift and mirror protected images like plain
    ones.
    """

    bundle: Transformation
    policy: ClassVar[Policy | None] = None
    policies: ClassVar[tuple[Policy, ...]] = ()
    augmentations: ClassVar[tuple[str, ...]] = ("flip", "shift", "crop")

    @property
    def name(self) -> str:
        return self.bundle.name

    def params(self) -> dict[str, ParamValue]:
        return self.bundle.params()

    def output_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return self.bundle.output_shape(channels, height, width)

    def protect(self, images: Tensor, context: Context) -> Tensor:
        return self.bundle.protect(images)

    def plain(self) -> Plain:
        return Plain()

    def __str__(self) -> str:
        alpha = self.bundle.info.get("config", {}).get("alpha")
        gan = self.bundle.method == "gan"
        how = "GAN-based" if gan else f"α = {alpha:g}" if alpha is not None else self.bundle.method
        return f"shared transformation network, no keys, {how}"


def plain_fits(protection: Protection, shape: tuple[int, int, int]) -> bool:
    """Whether plain images, as ``protection.plain()`` sends them, have the shape of protected ones.

    Args:
        protection: of the other images.
        shape: (C, H, W) of plain images.

    Raises:
        CipherError, TransformationError: images of this shape cannot be protected.
    """
    image = torch.zeros(1, *shape, dtype=torch.uint8)
    sent = protection.plain().protect(image, Context("query", b"", np.arange(1)))
    return tuple(sent.shape[1:]) == protection.output_shape(*shape)
