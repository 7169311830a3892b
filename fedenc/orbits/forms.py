"""The canonical form of every built-in cipher: images to images, in slices that fit a cache."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from fedenc.images.blocks import merge_blocks, split_blocks
from fedenc.orbits.nibbles import canonical_positions, canonical_values
from fedenc.orbits.rows import sort_rows
from fedenc.orbits.turns import canonical_blocks
from fedenc.orbits.values import fold, fold_sorted
from fedenc.plugins import Parameter

LE_BLOCK = 4  # pixels a side, of LE and ELE

# Bytes of images worked on at a time; temporaries take several times as many.
_SLICE_BYTES = {"cpu": 1 << 18, "cuda": 1 << 25}
_OTHER_SLICE_BYTES = 1 << 22


def form(cipher: str, params: Mapping[str, Parameter]) -> Callable[[Tensor], Tensor]:
    """The canonical form of a built-in cipher that has one, with its public parameters."""
    if cipher == "none":
        return none
    if cipher == "pixel":
        return partial(pixel, color_shuffle=bool(params["color_shuffle"]))
    if cipher in ("le", "ele"):
        return le if cipher == "le" else ele
    size = int(params["block_size"])
    if cipher == "scramble":
        return partial(scramble, block_size=size)
    colors = cipher == "etc" and bool(params["color_shuffle"])
    return partial(etc, block_size=size, color_shuffle=colors)


def none(images: Tensor) -> Tensor:
    """No encryption: the images themselves, uint8 (N, C, H, W)."""
    return images.clone()


def pixel(images: Tensor, *, color_shuffle: bool) -> Tensor:
    """``min(p, 255 − p)`` of every byte; with colour shuffling each pixel's values are then sorted.

    uint8 (N, C, H, W) to the same shape.
    """
    return fold_sorted(images) if color_shuffle else fold(images)


def etc(images: Tensor, *, block_size: int, color_shuffle: bool) -> Tensor:
    """The canonical form of every block (``fedenc.orbits.turns``), blocks then sorted.

    uint8 (N, C, H, W), H and W multiples of block_size, to the same shape. Also that of etc-gray,
    without colours, on joined gray planes.
    """

    def step(blocks: Tensor) -> Tensor:
        turned = canonical_blocks(blocks.flatten(0, 1), colors=color_shuffle)
        return _sorted(turned.view_as(blocks))

    return _by_blocks(images, block_size, step)


def scramble(images: Tensor, *, block_size: int) -> Tensor:
    """Blocks sorted (``fedenc.orbits.rows``): uint8 (N, C, H, W) to the same shape."""
    return _by_blocks(images, block_size, _sorted)


def le(images: Tensor) -> Tensor:
    """The rows of the matrix of half-bytes (32·C positions × blocks), each the darker of itself and
    its complement, sorted (``fedenc.orbits.nibbles``).

    uint8 (N, C, H, W), H and W multiples of 4, to the same shape. The keys of ``compat="icce2018"``
    are some of LE's, so this is invariant under them too; but two images that share it need not be
    ciphertexts of each other under such keys.
    """
    return _by_blocks(images, LE_BLOCK, canonical_positions)


def ele(images: Tensor) -> Tensor:
    """Each block's ``min(v, 15 − v)`` of its half-bytes, sorted, and the blocks then sorted.

    uint8 (N, C, H, W), H and W multiples of 4, to the same shape.
    """
    return _by_blocks(images, LE_BLOCK, lambda blocks: _sorted(canonical_values(blocks)))


def _sorted(blocks: Tensor) -> Tensor:
    """Sort the blocks (N, M, C, size, size) of every image."""
    return sort_rows(blocks.flatten(2)).view_as(blocks)


def _by_blocks(images: Tensor, size: int, step: Callable[[Tensor], Tensor]) -> Tensor:
    """Do something to the blocks (N, M, C, size, size) of all images, a slice at a time."""
    height, width = images.shape[2:]
    out = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    if not images.numel():
        return out
    room = _SLICE_BYTES.get(images.device.type, _OTHER_SLICE_BYTES)
    each = max(1, room // math.prod(images.shape[1:]))
    for source, target in zip(torch.split(images, each), torch.split(out, each), strict=True):
        target[:] = merge_blocks(step(split_blocks(source, size)), height, width)
    return out
