"""Encoded images to uint8 arrays."""

import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fedenc.bitdepth import is_deep
from fedenc.data.cache import Batch
from fedenc.errors import DataError

_BATCH = 512  # images decoded and held before they are written
_WORKERS = min(8, os.cpu_count() or 1)
_SIGNATURES = ((b"\x89PNG", ("PNG",)), (b"\xff\xd8\xff", ("JPEG",)), (b"RIFF", ("WEBP",)))


class Item(NamedTuple):
    """One encoded image: its bytes or file, its label, and what an error calls it."""

    data: bytes | Path
    label: int
    where: str


def decode(data: bytes | Path, where: str, size: int | None = None) -> NDArray[np.uint8]:
    """Decode one image to uint8 (H, W, 3) RGB; upright if its EXIF data says how it was held.

    With ``size`` the image is resized (antialiased bilinear) until its short side has ``size``
    pixels and its centre ``size``×``size`` square is kept; an image of that size is unchanged.

    Raises:
        DataError: not an image, a damaged one, or one of more than 8 bits a channel.
    """
    try:
        encoded = data if isinstance(data, bytes) else data.read_bytes()
        with Image.open(io.BytesIO(encoded), formats=_formats(encoded)) as image:
            if is_deep(image):
                raise ValueError(f"mode {image.mode}, more than 8 bits a channel")
            return to_array(ImageOps.exif_transpose(image).convert("RGB"), size)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise DataError(
            f"cannot decode {where}: {error or type(error).__name__}; expected an 8-bit image that "
            "Pillow can read: replace it or fetch the data again"
        ) from error


def _formats(encoded: bytes) -> tuple[str, ...] | None:
    """The usual formats by signature: trying all of Pillow's costs as much as decoding does."""
    return next((name for start, name in _SIGNATURES if encoded.startswith(start)), None)


def to_array(image: Image.Image, size: int | None) -> NDArray[np.uint8]:
    """An RGB image as uint8 (H, W, 3), after the resize and centre crop that `decode` describes."""
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def decode_batches(items: Iterable[Item], size: int | None) -> Iterator[Batch]:
    """Decode ``items`` on all cores (Pillow's decoders release the interpreter lock), in order.

    Raises:
        DataError: an image cannot be decoded, or differs in size from the first one.
    """
    remaining = iter(items)
    first: tuple[str, tuple[int, ...]] | None = None
    with ThreadPoolExecutor(_WORKERS) as pool:
        while chunk := list(islice(remaining, _BATCH)):
            images = list(pool.map(lambda item: decode(item.data, item.where, size), chunk))
            first = first or (chunk[0].where, images[0].shape)
            for item, image in zip(chunk, images, strict=True):
                if image.shape != first[1]:
                    raise DataError(
                        f"{item.where} is {_pixels(image.shape)} but {first[0]} is "
                        f"{_pixels(first[1])}; images of one data set must agree in size: "
                        "pass size to resize them all"
                    )
            stacked = np.stack(images).transpose(0, 3, 1, 2)  # (n, H, W, 3) -> (n, 3, H, W)
            yield stacked, np.array([item.label for item in chunk], dtype=np.int64)


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]} pixels"
