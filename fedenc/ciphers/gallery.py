"""One picture of what every cipher makes of an image, under one key and under independent keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from fedenc.ciphers import make, names
from fedenc.ciphers.base import Cipher
from fedenc.errors import CipherError
from fedenc.images import metrics, sheets
from fedenc.keys import KeyRing, Policy, new_nonce

COLUMNS: tuple[tuple[Policy, str], ...] = (("same", "same key"), ("image", "independent keys"))


@dataclass(frozen=True)
class Row:
    """One cipher's images.

    Attributes:
        name: the cipher's.
        encrypted: by key policy, in the order of the plain images: uint8 (C, H, W).
        ssim: by key policy, SSIM to the plain image, or None where the shapes differ.
    """

    name: str
    encrypted: dict[Policy, list[Tensor]]
    ssim: dict[Policy, list[float | None]]


def measure(images: Sequence[Tensor], ring: KeyRing, cipher: Cipher) -> Row:
    """Encrypt every image under one key and under its own.

    Args:
        images: uint8 (3, H, W) each, of any sizes.
        ring: the keys.
        cipher: the cipher to show.
    """
    encrypted: dict[Policy, list[Tensor]] = {}
    similar: dict[Policy, list[float | None]] = {}
    nonce = new_nonce()
    for policy, _ in COLUMNS:
        encrypted[policy] = [
            cipher.encrypt(
                image[None],
                ring.keystream(
                    method=cipher.name,
                    policy=policy,
                    purpose="gallery",
                    nonce=nonce,
                    ids=np.array([index]),
                ),
            )[0]
            for index, image in enumerate(images)
        ]
        similar[policy] = [
            ssim(plain, found) for plain, found in zip(images, encrypted[policy], strict=True)
        ]
    return Row(cipher.name, encrypted, similar)


def ssim(plain: Tensor, found: Tensor) -> float | None:
    """Structural similarity (Wang et al. 2004): 11×11 Gaussian window, σ = 1.5, on RGB.

    Args:
        plain: uint8 (3, H, W).
        found: uint8 (C, H', W'); what padding added is cut off.

    Returns:
        −1 to 1, or None where there is nothing to compare: other channels, or under 11 pixels.
    """
    _, height, width = plain.shape
    if len(found) != len(plain) or min(height, width) < metrics.SIDES["gaussian11"]:
        return None
    return metrics.ssim(plain[None], found[None, :, :height, :width], "gaussian11").item()


def draw(images: Sequence[Tensor], rows: Sequence[Row], *, cell: int = 128) -> Image.Image:
    """Lay out the plain images and those of the rows: one row per cipher, two columns per image.

    Args:
        images: uint8 (3, H, W) each.
        rows: from ``measure``.
        cell: pixels a side that an image is shown in.
    """
    titles = [title for _, title in COLUMNS] * len(images)
    plain: list[Tensor | None] = [None] * len(titles)
    sizes = [""] * len(titles)
    plain[:: len(COLUMNS)] = images
    sizes[:: len(COLUMNS)] = ["{2} x {1}".format(*image.shape) for image in images]
    shown = [sheets.Row("plain", plain, sizes)]
    for row in rows:
        places = [(index, policy) for index in range(len(images)) for policy, _ in COLUMNS]
        values = [row.ssim[policy][index] for index, policy in places]
        # + 0.0 turns "-0.000", from a small negative value, into "0.000"
        captions = ["other shape" if v is None else f"SSIM {round(v, 3) + 0.0:.3f}" for v in values]
        found = [row.encrypted[policy][index] for index, policy in places]
        shown.append(sheets.Row(row.name, found, captions))
    return sheets.grid(shown, titles=titles if rows else (), cell=cell)


def shrink(image: Tensor, limit: int) -> Tensor:
    """Scale an image down so that no side exceeds limit: uint8 (3, H, W) to the same.

    Images are scaled before they are encrypted: scaling would average a ciphertext to gray.
    """
    _, height, width = image.shape
    if max(height, width) <= limit:
        return image
    scale = limit / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return sheets.tensor(sheets.picture(image).resize(size, Image.Resampling.LANCZOS))


def built(which: Sequence[str] = ()) -> list[Cipher]:
    """The named ciphers with their defaults; without names, all that encrypt."""
    for name in which:
        if name not in names():
            raise CipherError(f"there is no cipher {name!r}; known are {', '.join(names())}")
    return [make(name) for name in which or names() if which or name != "none"]
