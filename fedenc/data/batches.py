"""Batches of decoded images, as the cache of data sets takes them."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedenc.data.cache import Batch
from fedenc.errors import DataError
from fedenc.images.decode import decode

_BATCH = 512  # images decoded and held before they are written
_WORKERS = min(8, os.cpu_count() or 1)


class Item(NamedTuple):
    """One encoded image: its bytes or file, its label, and what an error calls it."""

    data: bytes | Path
    label: int
    where: str


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
