"""A key of LE from ciphertexts alone: all blocks of all images show the same permutation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedenc.attacks.correlation import (
    colours,
    grid_edges,
    negative,
    principal_component,
    red_green_blue,
    standardised,
)
from fedenc.attacks.recovery import Recovered
from fedenc.ciphers import functional
from fedenc.ciphers.le import BLOCK

_NEAR = ((0.5, 1.0, 0.5), (1.0, 0.0, 1.0), (0.5, 1.0, 0.5))  # weights of a pixel's neighbours
_OTHERS = 0.6  # how far a colour's deviation from its neighbours follows that of the other colours


def le(encrypted: Tensor) -> Recovered:
    """The permutation and the reversals of half-bytes, of ciphertexts uint8 (N, C, H, W).

    The upper half-bytes are those that make up the first principal component. Those at the right of
    a block go with the block to the right, and so on, which gives their pixels. A lower half-byte
    is highest where a pixel's upper one is about to take a step upwards, seen from its neighbours.
    """
    channels, height, width = encrypted.shape[1:]
    grid = height // BLOCK, width // BLOCK
    blocks = functional.split_nibbles(functional.split_blocks(encrypted, BLOCK)).float()
    blocks = blocks.view(len(blocks), *grid, -1)  # (N, rows, columns, positions)
    positions = blocks.shape[3]
    _, loadings = principal_component(blocks.flatten(0, 2))
    upper, lower = loadings.abs().argsort(descending=True).chunk(2)
    sign = loadings.sign()
    values = torch.where(sign < 0, 15 - blocks, blocks)
    if negative(values[..., upper]):
        sign, values = -sign, 15 - values
    cell = _cells(values[..., upper], channels)
    order = torch.empty(positions, dtype=torch.int64)
    upper = upper[cell.argsort(stable=True)]  # in plain order, but for the order of colours
    upper = _in_colour(values, upper, channels)
    order[upper] = torch.arange(positions // 2, positions)
    expected = steps(joined(values[..., upper], channels))
    match = standardised(cut_blocks(expected)).T @ standardised(blocks[..., lower].flatten(0, 2))
    order[lower], sign[lower] = paired(match)
    flips = torch.zeros(positions).scatter_(0, order, (sign < 0).float()).to(torch.uint8)
    parts = order[None, None], flips[None, None]
    return Recovered(parts, tuple(part.long() for part in parts))


def _cells(values: Tensor, channels: int) -> Tensor:
    """Which pixel of a block each half-byte belongs to.

    What is at the right of a block goes with the block to the right more than with the one to the
    left, and so on.

    Args:
        values: float (N, rows, columns, K), K = channels·16, none of them complemented.
        channels: half-bytes of every pixel.

    Returns:
        int64 (K,), row·4 + column, each equally often.
    """
    scaled = standardised(values.flatten(0, 2)).view(values.shape)
    mean = scaled.mean(3, keepdim=True)
    right = (scaled[:, :, :-1] * mean[:, :, 1:]).mean((0, 1, 2))
    left = (scaled[:, :, 1:] * mean[:, :, :-1]).mean((0, 1, 2))
    below = (scaled[:, :-1] * mean[:, 1:]).mean((0, 1, 2))
    above = (scaled[:, 1:] * mean[:, :-1]).mean((0, 1, 2))
    cell = torch.empty(scaled.shape[3], dtype=torch.int64)
    for column, members in enumerate((right - left).argsort().chunk(BLOCK)):
        downwards = members[(below - above)[members].argsort()]
        cell[downwards] = torch.arange(BLOCK).repeat_interleave(channels) * BLOCK + column
    return cell


def _in_colour(values: Tensor, upper: Tensor, channels: int) -> Tensor:
    """Order the half-bytes of each pixel, ``upper`` (K,), by colour: red, green, blue."""
    if channels != 3:
        return upper
    pixels = values[..., upper].reshape(-1, BLOCK * BLOCK, channels)  # (N·M, 16, 3)
    upper = upper.view(-1, channels).gather(1, colours(pixels, *grid_edges(BLOCK, BLOCK)))
    pictures = joined(values[..., upper.flatten()], channels)
    return upper[:, red_green_blue(pictures)].flatten()


def paired(match: Tensor) -> tuple[Tensor, Tensor]:
    """Pair rows and columns of correlations, (K, K), the surest pairs first.

    Returns:
        int64 (K,), the row of every column, and float (K,), the sign of their correlation.
    """
    row, sign, free = torch.empty(len(match), dtype=torch.int64), match.sign(), match.abs()
    for _ in range(len(match)):
        one, other = divmod(int(free.argmax()), len(match))
        row[other] = one
        free[one], free[:, other] = -1, -1
    return row, sign[row, torch.arange(len(match))]


def joined(blocks: Tensor, channels: int) -> Tensor:
    """Pictures of half-bytes: (N, rows, columns, 16·C) to (N, C, 4·rows, 4·columns)."""
    count, rows, columns = blocks.shape[:3]
    cut = blocks.reshape(count, rows, columns, BLOCK, BLOCK, channels).permute(0, 5, 1, 3, 2, 4)
    return cut.flatten(4, 5).flatten(2, 3)


def cut_blocks(pictures: Tensor) -> Tensor:
    """Undo ``joined``, with all blocks below each other: (N·rows·columns, 16·C)."""
    blocks = pictures.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
    return blocks.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(0, 2)


def steps(upper: Tensor) -> Tensor:
    """How far a pixel's upper half-byte is below what its neighbours and its other colours let one
    expect, at most 1: then its lower half-byte tends to be large. (N, C, H, W) to the same."""
    channels = upper.shape[1]
    near = torch.tensor(_NEAR).expand(channels, 1, 3, 3) / sum(map(sum, _NEAR))
    framed = F.pad(upper, (1, 1, 1, 1), mode="replicate")
    below = F.conv2d(framed, near, groups=channels) - upper
    if channels > 1:
        others = (below.sum(1, keepdim=True) - below) / (channels - 1)
        below = below - _OTHERS * others
    return below.clamp(-1, 1)
