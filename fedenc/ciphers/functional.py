"""Pure operations of image encryption and their inverses: no randomness, no state.

Images are uint8 (N, C, H, W) on any device; results are new tensors on that device, with the same
bytes on every device. Key parts are tensors whose first axis is N, or 1 where all images share a
key.
"""

from __future__ import annotations

import torch
from torch import Tensor


def negative_positive(images: Tensor, flips: Tensor) -> Tensor:
    """Negative-positive transformation: ``p XOR 255`` (= 255 − p) where flips is 1.

    Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019, Eq. 1 with L = 8. Its own inverse.

    Args:
        images: uint8 (N, C, H, W).
        flips: uint8 zeros and ones, broadcastable to images.
    """
    return images ^ flips.neg()


def color_shuffle(images: Tensor, codes: Tensor) -> Tensor:
    """Colour shuffling: permute R, G and B pixel by pixel.

    Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019, Table 1. The source of output R, G, B is,
    for code 0 RGB, 1 RBG, 2 GRB, 3 GBR, 4 BRG, 5 BGR.

    Args:
        images: uint8 (N, 3, H, W).
        codes: uint8 in 0 to 5, broadcastable to (N, H, W).
    """
    return color_shuffle_(images.clone(), codes)


def color_shuffle_(images: Tensor, codes: Tensor) -> Tensor:
    """``color_shuffle`` in place."""
    return _exchange(images, codes, ((0, 1), (0, 2), (1, 2)))


def color_unshuffle(images: Tensor, codes: Tensor) -> Tensor:
    """Undo ``color_shuffle`` with the same codes."""
    return _exchange(images.clone(), codes, ((1, 2), (0, 2), (0, 1)))


def _exchange(images: Tensor, codes: Tensor, order: tuple[tuple[int, int], ...]) -> Tensor:
    """Conditionally exchange pairs of channels in place, in the order given.

    Every permutation of three channels is a product of three conditional exchanges, and those run
    as bytewise logic: an order of magnitude faster than gathering by index.
    """
    # code = 2·k + s: bring channel k to the front, then exchange the other two if s = 1
    masks = {
        (0, 1): (codes >> 1).clamp_(max=1).neg_(),
        (0, 2): (codes >> 2).neg_(),
        (1, 2): (codes & 1).neg_(),
    }
    for first, second in order:
        left, right = images[:, first], images[:, second]
        difference = (left ^ right).bitwise_and_(masks[first, second])
        left ^= difference
        right ^= difference
    return images
