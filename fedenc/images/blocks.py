"""Images as blocks, and bytes as half-bytes: how ciphers and their canonical forms lay them out.

Pure rearrangements of uint8 tensors on any device. Results are new tensors on that device.
"""

from functools import cache

import torch
from torch import Tensor


def split_blocks(images: Tensor, size: int) -> Tensor:
    """Cut into square blocks, row by row: (N, C, H, W) to (N, M, C, size, size).

    Height and width must be multiples of size; M = (H / size)·(W / size).
    """
    count, channels, height, width = images.shape
    rows, columns = height // size, width // size
    wide, pieces = _widen(images, size)
    cut = wide.reshape(count, channels, rows, size, columns, pieces).permute(0, 2, 4, 1, 3, 5)
    return _bytes(cut).reshape(count, rows * columns, channels, size, size)


def merge_blocks(blocks: Tensor, height: int, width: int) -> Tensor:
    """Undo ``split_blocks``: (N, M, C, size, size) to (N, C, height, width)."""
    count, _, channels, size, _ = blocks.shape
    rows, columns = height // size, width // size
    wide, pieces = _widen(blocks, size)
    joined = wide.reshape(count, rows, columns, channels, size, pieces).permute(0, 3, 1, 4, 2, 5)
    return _bytes(joined).reshape(count, channels, height, width)


def _widen(images: Tensor, size: int) -> tuple[Tensor, int]:
    """Bytes, flattened, as wider integers, so that a block's row of size bytes moves in few pieces.

    Returns:
        The integers, one-dimensional, and how many of them make up a row of a block.
    """
    flat = images.contiguous().view(-1)
    for dtype, width in ((torch.int64, 8), (torch.int32, 4)):
        if size % width == 0 and flat.storage_offset() % width == 0:
            return flat.view(dtype), size // width
    return flat, size


def _bytes(wide: Tensor) -> Tensor:
    return wide.reshape(-1).view(torch.uint8)


def permute_blocks(blocks: Tensor, order: Tensor) -> Tensor:
    """Move blocks: ``out[n, j] = blocks[n, order[n, j]]``.

    Args:
        blocks: uint8 (N, M, ...).
        order: int64 (N or 1, M), a permutation of range(M) in every row.
    """
    if len(order) == 1:
        return blocks.index_select(1, order[0])
    count, blocks_each = order.shape
    first = torch.arange(0, count * blocks_each, blocks_each, device=order.device)
    rows = (order + first[:, None]).reshape(-1)  # (N·M) into the flattened batch
    return blocks.reshape(count * blocks_each, -1).index_select(0, rows).reshape(blocks.shape)


def invert_permutation(order: Tensor) -> Tensor:
    """The inverse of every permutation along the last axis of int64 (..., P)."""
    source = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, source)


@cache
def turn_table(size: int) -> tuple[Tensor, Tensor]:
    """The eight symmetries of the square, in the codes of ``functional.turn_blocks``.

    Returns:
        int64 (8, size²) twice: the source position of every position, and the inverse.
    """
    plain = torch.arange(size * size).reshape(size, size)
    turned = []
    for code in range(8):
        block = plain.flip(1) if code & 1 else plain
        block = block.flip(0) if code & 2 else block
        turned.append((block.T if code & 4 else block).reshape(-1))
    table = torch.stack(turned)
    return table, invert_permutation(table)


def split_nibbles(blocks: Tensor) -> Tensor:
    """Bytes to half-bytes: (N, M, C, size, size) to (N, M, 2·P), P = C·size².

    Position ``(row·size + column)·C + channel`` holds the lower four bits of a byte; its upper four
    are P positions later. This is the layout of the code published with Tanaka's ICCE-TW 2018
    paper.
    """
    flat = blocks.permute(0, 1, 3, 4, 2).flatten(2)  # (N, M, P)
    return torch.cat((flat & 15, flat >> 4), dim=-1)


def merge_nibbles(nibbles: Tensor, channels: int, size: int) -> Tensor:
    """Undo ``split_nibbles``: (N, M, 2·C·size²) to (N, M, C, size, size)."""
    low, high = nibbles.chunk(2, dim=-1)
    flat = low | (high << 4)
    return flat.reshape(*flat.shape[:2], size, size, channels).permute(0, 1, 4, 2, 3)
