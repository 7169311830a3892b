"""Pure operations of image encryption and their inverses: no randomness, no state.

Images are uint8 (N, C, H, W) on any device. Results are new tensors on that device, except for
functions whose name ends in an underscore: they work in place. All arithmetic is on integers, so
results have the same bytes on every device. Key parts are tensors whose first axis is N, or 1 where
all images share a key.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedenc.images.blocks import (
    invert_permutation as invert_permutation,
)
from fedenc.images.blocks import (
    merge_blocks as merge_blocks,
)
from fedenc.images.blocks import (
    merge_nibbles as merge_nibbles,
)
from fedenc.images.blocks import (
    permute_blocks as permute_blocks,
)
from fedenc.images.blocks import (
    split_blocks as split_blocks,
)
from fedenc.images.blocks import (
    split_nibbles as split_nibbles,
)
from fedenc.images.blocks import (
    turn_table,
)

Pairs = tuple[tuple[int, int], ...]


def negative_positive(images: Tensor, flips: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Negative-positive transformation: ``p XOR 255`` (= 255 − p) where flips is 255.

    Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019, Eq. 1 with L = 8. Its own inverse.

    Args:
        images: uint8 of any shape.
        flips: uint8, 0 or 255, broadcastable to images.
        out: where to write the result; it may be images.
    """
    return torch.bitwise_xor(images, flips, out=out)


def color_shuffle(images: Tensor, codes: Tensor) -> Tensor:
    """Colour shuffling: permute R, G and B of every pixel.

    Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019, Table 1. The source of output R, G, B is,
    for code 0 RGB, 1 RBG, 2 GRB, 3 GBR, 4 BRG, 5 BGR.

    Args:
        images: uint8 (N, 3, H, W).
        codes: uint8 in 0 to 5, (N or 1, H, W).
    """
    return color_shuffle_(images.clone(), codes)


def color_shuffle_(images: Tensor, codes: Tensor) -> Tensor:
    """``color_shuffle`` in place."""
    return _exchange_(images, codes, ((0, 1), (0, 2), (1, 2)))


def color_unshuffle(images: Tensor, codes: Tensor) -> Tensor:
    """Undo ``color_shuffle`` with the same codes."""
    return _exchange_(images.clone(), codes, ((1, 2), (0, 2), (0, 1)))


def _exchange_(images: Tensor, codes: Tensor, order: Pairs) -> Tensor:
    """Conditionally exchange pairs of channels in place, in the order given.

    Every permutation of three channels is a product of three conditional exchanges: code = 2·k + s
    brings channel k to the front, by exchanging 0 with 1 if k ≥ 1 and then with 2 if k = 2; then it
    exchanges 1 with 2 if s = 1. This is faster than gathering by index.
    """
    exchange = _exchange_logic if images.device.type == "cpu" else _exchange_select
    exchange(images, codes, order)
    return images


def _exchanged(codes: Any, first: int, second: int) -> Any:
    """Where codes (a NumPy array or a tensor) exchange two channels: truth values or bits."""
    return codes & 1 if first == 1 else codes >= 2 * second


def _exchange_logic(images: Tensor, codes: Tensor, order: Pairs) -> None:
    """For CPUs: there libraries choose between bytes one by one, but multiply and XOR them with
    vector instructions; NumPy also compares with them, and torch does not."""
    planes = images.unbind(1)
    scratch = torch.from_numpy(np.empty(planes[0].shape, np.uint8))
    for first, second in order:
        left, right = planes[first], planes[second]
        torch.bitwise_xor(left, right, out=scratch)
        scratch *= torch.from_numpy(_exchanged(codes.numpy(), first, second).view(np.uint8))
        left ^= scratch
        right ^= scratch


def _exchange_select(images: Tensor, codes: Tensor, order: Pairs) -> None:
    """For GPUs, where memory traffic counts: this moves half as much as ``_exchange_logic``."""
    planes = list(images.unbind(1))
    for first, second in order:
        left, right = planes[first], planes[second]
        chosen = _exchanged(codes, first, second).view(torch.bool)
        planes[first] = torch.where(chosen, right, left)
        planes[second] = torch.where(chosen, left, right)
    torch.stack(planes, 1, out=images)


def pad_edges(images: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last row and the last column: (N, C, H, W) to (N, C, height, width)."""
    for dim, size in ((2, height), (3, width)):
        found = images.shape[dim]
        if found != size:
            source = torch.arange(size, device=images.device).clamp_(max=found - 1)
            images = images.index_select(dim, source)
    return images


def unpermute_blocks(blocks: Tensor, order: Tensor) -> Tensor:
    """Undo ``permute_blocks`` with the same order."""
    return permute_blocks(blocks, invert_permutation(order))


def shuffle_block_colors(blocks: Tensor, codes: Tensor) -> Tensor:
    """Colour shuffling of whole blocks, with the codes of ``color_shuffle``.

    Args:
        blocks: uint8 (N, M, 3, size, size).
        codes: integers in 0 to 5, (N or 1, M).
    """
    return permute_blocks(blocks.flatten(1, 2), _color_order(codes)).reshape(blocks.shape)


def unshuffle_block_colors(blocks: Tensor, codes: Tensor) -> Tensor:
    """Undo ``shuffle_block_colors`` with the same codes."""
    return unpermute_blocks(blocks.flatten(1, 2), _color_order(codes)).reshape(blocks.shape)


def _color_order(codes: Tensor) -> Tensor:
    """Codes (U, M) as permutations, int64 (U, 3·M), of all blocks' channels."""
    sources = torch.tensor(list(permutations(range(3))), device=codes.device)  # Table 1's order
    first = torch.arange(0, 3 * codes.shape[1], 3, device=codes.device)
    return (sources[codes.long()] + first[:, None]).flatten(1)


def turn_blocks(blocks: Tensor, codes: Tensor) -> Tensor:
    """Rotate and mirror blocks: the eight symmetries of the square.

    Bit 0 of a code mirrors left and right, bit 1 top and bottom, bit 2 then transposes. Uniform
    codes give each combination of rotation and inversion of block-based encryption-then-compression
    (Kurihara et al. 2015) the same probability.

    Args:
        blocks: uint8 (N, M, C, size, size).
        codes: integers in 0 to 7, (N or 1, M).
    """
    return _turn(blocks, codes, turn_table(blocks.shape[-1])[0])


def unturn_blocks(blocks: Tensor, codes: Tensor) -> Tensor:
    """Undo ``turn_blocks`` with the same codes."""
    return _turn(blocks, codes, turn_table(blocks.shape[-1])[1])


def _turn(blocks: Tensor, codes: Tensor, table: Tensor) -> Tensor:
    flat = blocks.flatten(-2)  # (N, M, C, size²)
    source = table.to(blocks.device)[codes.long()].unsqueeze(2)  # (N or 1, M, 1, size²)
    return flat.gather(3, source.expand(flat.shape)).reshape(blocks.shape)


def scramble_nibbles(nibbles: Tensor, order: Tensor, flips: Tensor) -> Tensor:
    """Reverse (``15 − v``) where flips is 1, then permute: ``out[j] = reversed[order[j]]``.

    Tanaka, ICCE-TW 2018.

    Args:
        nibbles: uint8 in 0 to 15, (N, M, P).
        order: int64 (N or 1, M or 1, P), permutations of range(P).
        flips: uint8 zeros and ones, shaped as order.
    """
    return (nibbles ^ (flips * 15)).gather(-1, order.expand(nibbles.shape))


def unscramble_nibbles(nibbles: Tensor, order: Tensor, flips: Tensor) -> Tensor:
    """Undo ``scramble_nibbles`` with the same order and flips."""
    source = invert_permutation(order)
    return nibbles.gather(-1, source.expand(nibbles.shape)) ^ (flips * 15)


def permute_pixels(images: Tensor, order: Tensor) -> Tensor:
    """Move whole pixels: ``out[..., j] = images[..., order[j]]`` with positions row by row.

    Args:
        images: uint8 (N, C, H, W).
        order: int64 (N or 1, H·W), a permutation of range(H·W) in every row.
    """
    flat = images.flatten(2)
    return flat.gather(2, order.unsqueeze(1).expand(flat.shape)).reshape(images.shape)


def unpermute_pixels(images: Tensor, order: Tensor) -> Tensor:
    """Undo ``permute_pixels`` with the same order."""
    return permute_pixels(images, invert_permutation(order))


def rgb_to_ycbcr(images: Tensor) -> Tensor:
    """ITU-T T.871 (JFIF) full-range YCbCr in 16-bit fixed point: uint8 (N, 3, H, W) to the same."""
    red, green, blue = images.to(torch.int32).unbind(1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    blueness = ((-11059 * red - 21709 * green + 32768 * blue + 32767) >> 16) + 128
    redness = ((32768 * red - 27439 * green - 5329 * blue + 32767) >> 16) + 128
    return torch.stack((luma, blueness, redness), dim=1).to(torch.uint8)


def ycbcr_to_rgb(images: Tensor) -> Tensor:
    """Undo ``rgb_to_ycbcr`` up to rounding: every value within 2 of where it was."""
    luma, blueness, redness = images.to(torch.int32).unbind(1)
    blueness, redness = blueness - 128, redness - 128
    red = luma + ((91881 * redness + 32768) >> 16)
    green = luma + ((-22554 * blueness - 46802 * redness + 32768) >> 16)
    blue = luma + ((116130 * blueness + 32768) >> 16)
    return torch.stack((red, green, blue), dim=1).clamp_(0, 255).to(torch.uint8)
