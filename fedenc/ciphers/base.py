"""The base class of ciphers: a frozen dataclass of public parameters, and three steps.

``draw`` takes a method's key parts from the keystream, ``apply`` and ``invert`` are pure functions
of images and those parts. ``encrypt`` and ``decrypt`` check the input and run the steps over slices
of the batch that fit the processor's cache, so that memory stays near that of the output.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedenc.errors import CipherError
from fedenc.keys import MASTER_BITS, POLICIES, Keystream, Policy

Parameter = bool | int | float | str
Shape = tuple[int, int, int]
KeyParts = tuple[Tensor, ...]

# Bytes of plain images worked on at a time. On a CPU a slice, its key and its temporaries share
# the second-level cache; on a GPU a slice only bounds the memory that temporaries take.
_SLICE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 26}
_OTHER_SLICE_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class Cipher(ABC):
    """Encrypts batches of uint8 images (N, C, H, W), deterministically, with a keystream.

    A subclass is a frozen dataclass whose fields are its public parameters (bool, int, float or
    str), checked in ``__post_init__``. Key parts are tensors whose first axis is 1 or N.

    Attributes:
        name: its name in the registry.
        exact: ``decrypt`` restores every byte.
        policies: the key policies that make sense for it. The first is a scenario's default if
            ``image`` is not among them; a scenario that sets another one runs with a warning.
        augmentations: what a server may do to ciphertexts: operations that turn the ciphertext of
            an image into a ciphertext, under another key, of the image after the same operation
            (where images share a key, it is one that they do not have). They decide the default
            of ``augmentation.server``; more than they allow runs with a warning.
        slice_scale: how much larger than usual the slices should be that are worked on at a time.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    policies: ClassVar[tuple[Policy, ...]] = POLICIES
    augmentations: ClassVar[tuple[str, ...]] = ()
    slice_scale: ClassVar[float] = 1

    @abstractmethod
    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        """The key parts for plain images of this shape, drawn in a documented order."""

    @abstractmethod
    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        """Encrypt uint8 (N, C, H, W) to new uint8 (N, *output_shape(C, H, W))."""

    def apply_into(self, images: Tensor, key: KeyParts, out: Tensor) -> Tensor:
        """As ``apply``, but may write to out, which saves a copy; by default it does not.

        Args:
            images: uint8 (N, C, H, W).
            key: from ``draw``.
            out: uint8 (N, *output_shape(C, H, W)); it may be images.

        Returns:
            The result: out, or a new tensor.
        """
        return self.apply(images, key)

    @abstractmethod
    def invert(self, images: Tensor, key: KeyParts, shape: Shape) -> Tensor:
        """Undo ``apply``: uint8 (N, *output_shape(*shape)) to new uint8 (N, *shape)."""

    @abstractmethod
    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        """log2 of the number of distinct keys for one image of this shape."""

    def layout(self, images: Tensor) -> Tensor:
        """What encryption does to images before any key comes in, such as padding.

        Whoever has a plain image can bring it into the shape of ciphertexts by this.

        Args:
            images: uint8 (N, C, H, W).

        Returns:
            uint8 (N, *output_shape(C, H, W)); it may be the images themselves.
        """
        return images

    def canonical(self, images: Tensor) -> Tensor | None:
        """The canonical form: one image that stands for all that keys turn an image into.

        For every key, ``canonical(encrypt(x)) == canonical(layout(x))``, bit for bit, and the form
        itself is what some key makes of x. It needs no key, so it is what a ciphertext tells anyone
        under independent keys; see ``fedenc.orbits``. A cipher without such a form leaves this
        method as it is.

        Args:
            images: ciphertexts, or images in their ``layout``: uint8 (N, *output_shape(C, H, W)).

        Returns:
            New uint8 of the same shape; None if the cipher has no such form.
        """
        return None

    def output_shape(self, channels: int, height: int, width: int) -> Shape:
        """The shape (C, H, W) that an encrypted image of this plain shape has.

        Raises:
            CipherError: the cipher cannot encrypt images of this shape.
        """
        return channels, height, width

    def plain_shape(self, channels: int, height: int, width: int) -> Shape:
        """The plain shape that ``decrypt`` takes for this encrypted one if it is not given any."""
        return channels, height, width

    def params(self) -> dict[str, Parameter]:
        """The public parameters in full; ``make(name, **params)`` builds an equal cipher."""
        return dataclasses.asdict(self)

    def effective_bits(self, channels: int, height: int, width: int) -> float:
        """log2 of the keys that a brute-force search has to try: no more than there are masters."""
        return min(self.key_space_log2(channels, height, width), float(MASTER_BITS))

    def encrypt(self, images: Tensor, keystream: Keystream, *, out: Tensor | None = None) -> Tensor:
        """Encrypt a batch.

        Args:
            images: uint8 (N, C, H, W) on any device.
            keystream: key material for N images; its own position is neither used nor moved.
            out: where to write the result, which saves the cost of fresh memory; it may be images
                itself if encryption keeps the shape.

        Returns:
            uint8 (N, *output_shape(C, H, W)) on the images' device: out, or a new tensor.

        Raises:
            CipherError: images of another dtype or rank, a shape the cipher cannot encrypt, a
                keystream for another number of images, or an out that does not fit.
        """
        images = _check("images", images, keystream)
        shape = _shape(images)
        out = _fitting(out, images, self.output_shape(*shape))
        return self._run(images, self.output_shape(*shape), keystream, shape, self.apply_into, out)

    def decrypt(
        self,
        images: Tensor,
        keystream: Keystream,
        *,
        shape: Shape | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Undo ``encrypt`` under the same keystream.

        Args:
            images: uint8 (N, C', H', W') as ``encrypt`` returned them.
            keystream: key material for N images; its own position is neither used nor moved.
            shape: (C, H, W) of the plain images, where encryption changed it.
            out: as for ``encrypt``.

        Returns:
            uint8 (N, C, H, W) on the images' device: out, or a new tensor.

        Raises:
            CipherError: as ``encrypt``, or images of another shape than images of ``shape`` get.
        """
        images = _check("images", images, keystream)
        found = _shape(images)
        shape = self.plain_shape(*found) if shape is None else shape
        expected = self.output_shape(*shape)
        if found != expected:
            raise CipherError(
                f"encrypted images are {_text(found)}, but images of shape {_text(shape)} become "
                f"{_text(expected)} under {self.name!r}; pass the original shape"
            )
        plain = shape
        return self._run(
            images,
            plain,
            keystream,
            plain,
            lambda part, key, _: self.invert(part, key, plain),
            _fitting(out, images, plain),
        )

    def _run(
        self,
        images: Tensor,
        result: Shape,
        keystream: Keystream,
        plain: Shape,
        step: Callable[[Tensor, KeyParts, Tensor], Tensor],
        out: Tensor | None,
    ) -> Tensor:
        """For one slice of the batch after another, draw the key and take the step."""
        _keep_freed_memory()
        count, device = len(images), images.device
        if not count or not images.numel():
            return _empty((count, *result), device) if out is None else out
        room = _SLICE_BYTES.get(device.type, _OTHER_SLICE_BYTES) * self.slice_scale
        width = max(1, int(room) // math.prod(plain))
        if out is None:
            out = _empty((count, *result), device)
        shared = self._key(keystream.part(0, 1), plain, device) if keystream.streams == 1 else None
        for start in range(0, count, width):
            stop = min(start + width, count)
            key = shared or self._key(keystream.part(start, stop), plain, device)
            found = step(images[start:stop], key, out[start:stop])
            if found.data_ptr() != out[start:stop].data_ptr():
                out[start:stop] = found
        return out

    def _key(self, keystream: Keystream, plain: Shape, device: torch.device) -> KeyParts:
        return tuple(part.to(device) for part in self.draw(keystream, *plain))


def _empty(shape: tuple[int, ...], device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.empty(shape, dtype=torch.uint8, device=device)
    # unlike torch, NumPy asks Linux for huge pages, which makes fresh memory cheaper
    return torch.from_numpy(np.empty(shape, np.uint8))


@cache
def _keep_freed_memory() -> None:
    """Have glibc's allocator keep freed temporaries instead of returning them to the kernel.

    The allocator does so for blocks up to the size (at most 32 MiB) of a block that was freed
    before. Otherwise the temporaries of every slice are mapped, zeroed page by page and unmapped
    again, which takes long. The block freed here is never written to, so it takes no memory itself.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def _check(name: str, images: Tensor, keystream: Keystream) -> Tensor:
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        found = (
            f"{images.dtype} of shape {tuple(images.shape)}"
            if isinstance(images, Tensor)
            else type(images).__name__
        )
        raise CipherError(
            f"{name} is {found}, expected a torch.uint8 tensor N×C×H×W with values 0 to 255; "
            "convert images in [0, 1] by (255 * x).round().to(torch.uint8)"
        )
    if keystream.count != len(images):
        raise CipherError(
            f"the keystream is for {keystream.count} images, {name} holds {len(images)}; "
            "ask the key ring for one id per image"
        )
    return images.as_subclass(Tensor)


def _fitting(out: Tensor | None, images: Tensor, shape: Shape) -> Tensor | None:
    if out is None:
        return None
    wanted = (len(images), *shape)
    if out.shape != wanted or out.dtype != torch.uint8 or out.device != images.device:
        raise CipherError(
            f"out is {out.dtype} of shape {tuple(out.shape)} on {out.device}, expected torch.uint8 "
            f"of shape {wanted} on {images.device}"
        )
    return out


def _shape(images: Tensor) -> Shape:
    channels, height, width = images.shape[1:]
    return channels, height, width


def _text(shape: Shape) -> str:
    return "×".join(map(str, shape))
