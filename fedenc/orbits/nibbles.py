"""Canonical forms of blocks whose half-bytes are complemented and permuted (LE, ELE)."""

from functools import cache

import torch
from torch import Tensor

from fedenc.images.blocks import merge_nibbles, split_nibbles
from fedenc.orbits.rows import sort_rows

_LEVELS = 8  # values of min(v, 15 − v)


def canonical_positions(blocks: Tensor) -> Tensor:
    """LE: one key for all blocks, so a position's half-bytes in all blocks are one row, which is
    complemented and moved as a whole. The darker of each row and its complement is kept (where both
    are as dark, the one that starts with less than 8). Rows are sorted from rough to smooth, by the
    sum of the differences between neighbouring blocks: so what were upper four bits, which follow
    the image, mostly are so again.

    Args:
        blocks: uint8 (N, M, C, size, size), all the blocks of an image.

    Returns:
        uint8 of the same shape.
    """
    _, each, channels, size, _ = blocks.shape
    rows = split_nibbles(blocks).transpose(1, 2).contiguous()  # (N, 32·C, M)
    excess = 2 * rows.sum(-1, dtype=torch.int64) - 15 * each
    bright = (excess > 0) | (excess == 0) & (rows[..., 0] > 7)
    rows ^= (bright.to(torch.uint8) * 15)[..., None]
    left, right = rows[..., :-1], rows[..., 1:]
    steps = torch.maximum(left, right) - torch.minimum(left, right)
    ordered = sort_rows(rows, -steps.sum(-1, dtype=torch.int64))
    return merge_nibbles(ordered.transpose(1, 2), channels, size)


def canonical_values(blocks: Tensor) -> Tensor:
    """ELE: a key for every block, so of a block only the multiset of ``min(v, 15 − v)`` is left.
    Its half-bytes are sorted: the lesser half become the lower four bits of the bytes.

    Args:
        blocks: uint8 (N, M, C, size, size).

    Returns:
        uint8 of the same shape; blocks are not moved.
    """
    count, each, channels, size, _ = blocks.shape
    flat = blocks.reshape(count * each, -1)
    # Counting is faster than sorting. Four counts of 16 bits share a word.
    words = _counts().to(blocks.device)[flat.long()].sum(1)  # (N·M, 2)
    shifts = torch.arange(0, 64, 16, device=blocks.device)
    counts = (words[..., None] >> shifts & 0xFFFF).flatten()  # (N·M·8)
    levels = torch.arange(_LEVELS, dtype=torch.uint8, device=blocks.device)
    ordered = levels.repeat(count * each).repeat_interleave(counts, output_size=2 * flat.numel())
    return merge_nibbles(ordered.view(count, each, -1), channels, size)


@cache
def _counts() -> Tensor:
    """For every byte, how often each of the eight folded values is among its half-bytes: int64
    (256, 2), values 0..3 in the first word, 16 bits each, and 4..7 in the second."""
    table = torch.zeros(256, 2, dtype=torch.int64)
    for byte in range(256):
        for nibble in (byte & 15, byte >> 4):
            value = min(nibble, 15 - nibble)
            table[byte, value // 4] += 1 << (16 * (value % 4))
    return table
