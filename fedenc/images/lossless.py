"""Image files to uint8 tensors and back, without losing a byte on the way."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedenc.errors import CipherError, DataError
from fedenc.images.decode import open_image

READABLE = (".png", ".webp", ".bmp", ".jpg", ".jpeg")
LOSSLESS = {".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
_WEBP_LIMIT = 16383  # pixels a side


def check_lossless(suffix: str) -> None:
    """Raises CipherError unless files of this suffix keep every byte."""
    if suffix.lower() not in LOSSLESS:
        raise CipherError(
            f"{suffix or 'no suffix'} is not a lossless image format, and encrypted images decrypt "
            f"only if every byte is kept; use one of {', '.join(LOSSLESS)}"
        )


def read(path: Path) -> tuple[Tensor, str]:
    """Decode a file.

    Returns:
        uint8 (C, H, W) and the mode to restore: ``RGB`` (C = 3), ``L`` (C = 1), or ``RGBA`` for an
        image whose alpha channel is opaque everywhere (C = 3). Palettes become the colours they
        stand for; pictures are turned upright as EXIF data says, and all metadata is dropped.

    Raises:
        DataError: as :func:`open_image`, of another mode, or transparent.
    """
    picture = open_image(path, str(path))
    if picture.mode not in ("1", "L", "RGB", "RGBA", "LA", "P", "PA"):
        raise DataError(
            f"{path.name} has mode {picture.mode}, expected 8-bit gray or RGB; convert it"
        )
    opaque = "transparency" not in picture.info
    if picture.mode in ("1", "L") and opaque:
        return _tensor(picture.convert("L")), "L"
    if picture.mode == "RGB" and opaque:
        return _tensor(picture), "RGB"
    full = _tensor(picture.convert("RGBA"))
    if not bool((full[3] == 255).all()):
        raise DataError(
            f"{path.name} is transparent in places, and no cipher hides its alpha channel; "
            "flatten it first"
        )
    if picture.mode in ("1", "L"):
        return full[:1], "L"
    return full[:3], "RGBA" if picture.mode == "RGBA" else "RGB"


def write(path: Path, image: Tensor, mode: str) -> None:
    """Encode a file in the lossless format of its suffix; it appears whole or not at all.

    Args:
        path: ends in .png, .webp or .bmp; folders above it are made.
        image: uint8 (C, H, W).
        mode: ``RGB`` (C = 3), ``L`` (C = 1) or ``RGBA`` (C = 3, an opaque alpha channel is added).

    Raises:
        CipherError: a lossy format, or an image that the format cannot hold.
        DataError: the file cannot be written.
    """
    check_lossless(path.suffix)
    kind = LOSSLESS[path.suffix.lower()]
    if kind == "WEBP" and max(image.shape[1:]) > _WEBP_LIMIT:
        raise CipherError(f"{path.name}: WebP holds {_WEBP_LIMIT} pixels a side; use .png")
    if mode == "L":
        picture = Image.fromarray(image[0].contiguous().numpy())
        if kind == "WEBP":
            picture = picture.convert("RGB")
    else:
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        if mode == "RGBA":
            picture.putalpha(255)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(temporary, kind, **options)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _tensor(picture: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(picture, np.uint8))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
