"""One picture of what every cipher makes of an image, under one key and under independent keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fedenc import metrics
from fedenc.ciphers import make, names
from fedenc.ciphers.base import Cipher
from fedenc.errors import CipherError
from fedenc.keys import KeyRing, Policy, new_nonce

COLUMNS: tuple[tuple[Policy, str], ...] = (("same", "same key"), ("image", "independent keys"))
_GAP, _LINE, _LABEL = 8, 18, 110  # pixels


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
        ring: whose keys.
        cipher: with what.
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
    """Lay out the plain images and every row's: a row a cipher, two columns an image.

    Args:
        images: uint8 (3, H, W) each.
        rows: from ``measure``.
        cell: pixels a side that an image is shown in.
    """
    step_x, step_y = cell + _GAP, cell + _LINE + _GAP
    columns = len(COLUMNS) * len(images)
    sheet = Image.new(
        "RGB", (_LABEL + columns * step_x + _GAP, (len(rows) + 1) * step_y + _LINE + _GAP), "white"
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)

    def show(row: int, column: int, image: Tensor, text: str) -> None:
        x, y = _LABEL + column * step_x, _LINE + _GAP + row * step_y
        sheet.paste(_fit(image, cell), (x, y))
        pen.text((x, y + cell + 1), text, "black", font)

    pen.text((_GAP, _LINE + _GAP), "plain", "black", font)
    for index, image in enumerate(images):
        show(0, len(COLUMNS) * index, image, "{2} x {1}".format(*image.shape))
    for number, row in enumerate(rows, start=1):
        pen.text((_GAP, _LINE + _GAP + number * step_y), row.name, "black", font)
        for index in range(len(images)):
            for offset, (policy, title) in enumerate(COLUMNS):
                value = row.ssim[policy][index]
                text = "other shape" if value is None else f"SSIM {value:.3f}"
                column = len(COLUMNS) * index + offset
                show(number, column, row.encrypted[policy][index], text)
                if number == 1:
                    pen.text((_LABEL + column * step_x, _GAP // 2), title, "black", font)
    return sheet


def shrink(image: Tensor, limit: int) -> Tensor:
    """Scale an image down so that no side exceeds limit: uint8 (3, H, W) to the same.

    Encryption comes after it; a ciphertext scaled down would average to gray.
    """
    _, height, width = image.shape
    if max(height, width) <= limit:
        return image
    scale = limit / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = _picture(image).resize(size, Image.Resampling.LANCZOS)
    return tensor(picture)


def tensor(picture: Image.Image) -> Tensor:
    """An RGB picture as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def built(which: Sequence[str] = ()) -> list[Cipher]:
    """The named ciphers with their defaults; without names, all that encrypt."""
    for name in which:
        if name not in names():
            raise CipherError(f"there is no cipher {name!r}; known are {', '.join(names())}")
    return [make(name) for name in which or names() if which or name != "none"]


def _picture(image: Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels[..., :3]).convert("RGB")


def _fit(image: Tensor, cell: int) -> Image.Image:
    """Scale into a square cell: pixels stay squares when enlarged, are averaged when reduced."""
    _, height, width = image.shape
    scale = cell / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return _picture(image).resize(size, how)
