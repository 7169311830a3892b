"""Ciphers as torchvision transforms: the last step of a data set's ``v2.Compose``."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fedenc.ciphers.base import Cipher
from fedenc.errors import CipherError
from fedenc.keys import KeyRing, Policy, new_nonce

Ids = Literal["random", "content"]


class Encrypt(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Encrypt images, and leave masks, boxes and labels alone.

    Takes uint8 [..., C, H, W] as a tensor or ``tv_tensors.Image`` (or Video) and returns the same
    type, of ``cipher.output_shape``. It can be pickled, so it works in DataLoader workers; a pickle
    holds the key ring.

    Under policy ``image`` every image needs an id that no other image has. ``ids="random"`` draws
    a new one at every call: in every epoch and worker an image gets another key, and nobody can
    decrypt it. ``ids="content"`` derives it from the image's bytes: an image always gets
    the same key, and equal images equal ciphertexts.

    Args:
        cipher: any cipher, such as ``make("pixel")``.
        ring: the keys.
        policy: which images share a key.
        purpose: what the images are encrypted for.
        nonce: public, 16 bytes; None draws one.
        ids: where ids come from under policy ``image``.

    Raises:
        CipherError: here for an unknown choice of ids; when called, for PIL images (put
            ``v2.PILToTensor()`` before) and for whatever the cipher cannot encrypt.
    """

    def __init__(
        self,
        cipher: Cipher,
        ring: KeyRing,
        *,
        policy: Policy = "image",
        purpose: str = "train",
        nonce: bytes | None = None,
        ids: Ids = "random",
    ) -> None:
        super().__init__()
        if ids not in ("random", "content"):
            raise CipherError(f"ids is {ids!r}, expected 'random' or 'content'")
        self.cipher = cipher
        self.ring = ring
        self.policy: Policy = policy
        self.purpose = purpose
        self.nonce = new_nonce() if nonce is None else nonce
        self.ids: Ids = ids

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Encrypt one input of a sample."""
        if isinstance(inpt, PIL.Image.Image):
            raise CipherError(
                "Encrypt takes tensors, found a PIL image; put v2.PILToTensor() before"
            )
        if isinstance(inpt, tv_tensors.TVTensor) and not isinstance(
            inpt, tv_tensors.Image | tv_tensors.Video
        ):
            return inpt
        found = self._encrypt(inpt.as_subclass(Tensor))
        return tv_tensors.wrap(found, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else found

    def extra_repr(self) -> str:
        return f"{self.cipher}, {self.ring}, policy={self.policy}, ids={self.ids}"

    def _encrypt(self, images: Tensor) -> Tensor:
        if images.ndim < 3:
            raise CipherError(
                f"Encrypt takes images [..., C, H, W], found shape {tuple(images.shape)}"
            )
        *lead, channels, height, width = images.shape
        batch = images.reshape(-1, channels, height, width)
        # equal images have equal ids under ids="content"; they are encrypted once
        ids, first, again = np.unique(self._ids(batch), return_index=True, return_inverse=True)
        keystream = self.ring.keystream(
            method=self.cipher.name,
            policy=self.policy,
            purpose=self.purpose,
            nonce=self.nonce,
            ids=ids,
        )
        found = self.cipher.encrypt(batch[torch.from_numpy(first)], keystream)
        found = found[torch.from_numpy(again)]
        return found.reshape(*lead, *found.shape[1:])

    def _ids(self, batch: Tensor) -> npt.NDArray[np.int64]:
        if self.policy != "image":
            return np.arange(len(batch))
        source: Callable[[Tensor], int] = _random_id if self.ids == "random" else _content_id
        return np.array([source(image) for image in batch], np.int64)


def _random_id(image: Tensor) -> int:
    # workers are forked with equal generators; only the operating system's gives them different ids
    return secrets.randbits(63)


def _content_id(image: Tensor) -> int:
    content = image.contiguous().cpu()
    shape = repr(tuple(content.shape)).encode()
    digest = blake2b(content.view(torch.uint8).numpy().tobytes(), key=shape, digest_size=8)
    return int.from_bytes(digest.digest(), "little") >> 1
