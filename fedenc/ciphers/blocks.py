"""Common parts of block-based ciphers: block sizes, padding, and the block scrambling of EtC."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedenc.ciphers import functional
from fedenc.ciphers.base import KeyParts, Shape
from fedenc.errors import CipherError
from fedenc.keys import Keystream

BLOCK_SIZES = (4, 8, 16)
PADDINGS = ("edge", "none")
TURNS = 8


def check_block_size(block_size: int) -> None:
    """Raises CipherError unless it is one of BLOCK_SIZES."""
    if isinstance(block_size, bool) or block_size not in BLOCK_SIZES:
        raise CipherError(f"block_size is {block_size!r}, expected one of 4, 8 and 16")


def check_padding(padding: str) -> None:
    """Raises CipherError unless it is one of PADDINGS."""
    if padding not in PADDINGS:
        raise CipherError(f"padding is {padding!r}, expected one of {', '.join(PADDINGS)}")


def padded(height: int, width: int, multiple: int, padding: str) -> tuple[int, int]:
    """The next multiples of a block size.

    Raises:
        CipherError: padding would be needed, but the rule is ``none``.
    """
    full = -(-height // multiple) * multiple, -(-width // multiple) * multiple
    if full != (height, width) and padding == "none":
        raise CipherError(
            f"images of {height}×{width} do not divide into blocks of {multiple}×{multiple}; "
            "resize them or pass padding='edge'"
        )
    return full


def unpad(images: Tensor, shape: Shape) -> Tensor:
    """Cut off what padding added."""
    return images[..., : shape[1], : shape[2]]


def log2_factorial(n: int) -> float:
    """log2(n!)."""
    return math.lgamma(n + 1) / math.log(2)


def draw_scrambling(keystream: Keystream, count: int) -> KeyParts:
    """Draw, in this order, what ``scramble`` needs for M = count blocks.

    Returns:
        order: int64 (U, M), one permutation of the blocks.
        turns: uint8 (U, M), integers below 8.
        flips: uint8 (U, M), bits as 0 or 255.
    """
    order = keystream.permutations(count, 1)[:, 0]
    turns = keystream.integers(TURNS, count)
    flips = keystream.masks(count)
    return torch.from_numpy(order), torch.from_numpy(turns), torch.from_numpy(flips)


def scrambling_key_space_log2(count: int) -> float:
    """log2(M!·8^M·2^M)."""
    return log2_factorial(count) + 4.0 * count


def scramble(blocks: Tensor, key: KeyParts) -> Tensor:
    """Permute, turn and invert blocks (N, M, C, size, size): the first three steps of EtC."""
    order, turns, flips = key
    blocks = functional.turn_blocks(functional.permute_blocks(blocks, order), turns)
    return functional.negative_positive(blocks, flips[..., None, None, None])


def unscramble(blocks: Tensor, key: KeyParts) -> Tensor:
    """Undo ``scramble`` with the same key parts."""
    order, turns, flips = key
    blocks = functional.negative_positive(blocks, flips[..., None, None, None])
    return functional.unpermute_blocks(functional.unturn_blocks(blocks, turns), order)
