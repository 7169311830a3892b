"""The usual way: a Python loop over images, NumPy inside, keys from a seeded generator.

Written for comparison in the style of research scripts, which differ in detail; not for use.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[Any]  # uint8 (N, H, W, 3), an image of it, or a block

_ORDERS = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])


def _pixel(image: Images, random: np.random.RandomState, shuffle: bool) -> Images:
    flips = random.randint(0, 2, image.shape)
    out = np.where(flips == 1, 255 - image, image)
    if not shuffle:
        return out
    orders = _ORDERS[random.randint(0, 6, image.shape[:2])]
    return np.take_along_axis(out, orders, axis=2)


def _blocks(image: Images, size: int) -> list[Images]:
    return [
        image[y : y + size, x : x + size]
        for y in range(0, image.shape[0], size)
        for x in range(0, image.shape[1], size)
    ]


def _join(blocks: list[Images], height: int, width: int) -> Images:
    size = len(blocks[0])
    out = np.empty((height, width, 3), np.uint8)
    for index, block in enumerate(blocks):
        y, x = divmod(index, width // size)
        out[y * size : (y + 1) * size, x * size : (x + 1) * size] = block
    return out


def _scramble(image: Images, random: np.random.RandomState) -> Images:
    blocks = _blocks(image, 8)
    return _join([blocks[i] for i in random.permutation(len(blocks))], *image.shape[:2])


def _etc(image: Images, random: np.random.RandomState) -> Images:
    blocks = _blocks(image, 4)
    out = []
    for index in random.permutation(len(blocks)):
        block = np.rot90(blocks[index], int(random.randint(0, 4)))
        block = block[:, ::-1] if random.randint(0, 2) else block
        block = 255 - block if random.randint(0, 2) else block
        out.append(block[..., _ORDERS[random.randint(0, 6)]])
    return _join(out, *image.shape[:2])


def _nibbles(block: Images, order: npt.NDArray[np.int64], flips: npt.NDArray[np.bool_]) -> Images:
    flat = block.reshape(-1)
    halves = np.concatenate((flat & 15, flat >> 4))
    halves = np.where(flips, 15 - halves, halves)[order]
    merged: Images = (halves[:48] + 16 * halves[48:]).astype(np.uint8)
    return merged.reshape(4, 4, 3)


def _le(image: Images, random: np.random.RandomState) -> Images:
    order, flips = random.permutation(96), random.randint(0, 2, 96).astype(bool)
    blocks = [_nibbles(block, order, flips) for block in _blocks(image, 4)]
    return _join(blocks, *image.shape[:2])


def _ele(image: Images, random: np.random.RandomState) -> Images:
    blocks = [
        _nibbles(block, random.permutation(96), random.randint(0, 2, 96).astype(bool))
        for block in _blocks(image, 4)
    ]
    return _join([blocks[i] for i in random.permutation(len(blocks))], *image.shape[:2])


LOOPS: dict[str, Callable[[Images, np.random.RandomState], Images]] = {
    "pixel NP": lambda image, random: _pixel(image, random, False),
    "pixel NP+CS": lambda image, random: _pixel(image, random, True),
    "etc": _etc,
    "le": _le,
    "ele": _ele,
    "scramble": _scramble,
}


def encrypt(method: str, images: Images, policy: str) -> Images:
    """Encrypt (N, H, W, 3) one image after the other; the same seed for all, or one each."""
    step = LOOPS[method]
    return np.stack(
        [
            step(image, np.random.RandomState(0 if policy == "same" else index))
            for index, image in enumerate(images)
        ]
    )
