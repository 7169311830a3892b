"""The canonical form of blocks that encryption-then-compression (EtC) turns and complements.

A block has 8 turns × 2 polarities × 6 orders of its colours = 96 forms. The canonical one is the
least by these figures, one after the other:

1. the sum of its bytes: it is the darker of the two polarities;
2. the sums of its channels, in order: they ascend;
3. its vertical, then its horizontal first moment: the upper left is the brighter corner, and
   brightness falls at least as much from top to bottom as from left to right;
4. its bytes, as words of eight.

The first three nearly always decide. They follow from a few sums, so no form is ever made but that
one; only where some are equal (plain areas, gray images) are all 96 compared.
"""

import math
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from fedenc.images.blocks import turn_table
from fedenc.orbits.rows import as_words

TURNS = 8
_TIED_AT_A_TIME = 1024  # blocks of which all forms are made


def canonical_blocks(blocks: Tensor, *, colors: bool) -> Tensor:
    """The canonical form of every block.

    Args:
        blocks: uint8 (K, C, size, size).
        colors: the order of the channels varies too; then C is 3.

    Returns:
        uint8 (K, C, size, size).
    """
    _, channels, size, _ = blocks.shape
    flat = blocks.flatten(1)
    figures = flat.double() @ _figures(channels, size).to(blocks.device)  # exact: below 2^53
    sums, (down, right) = figures[:, :channels], figures[:, channels:].unbind(1)
    middle = 255 * size * size / 2
    excess = sums.sum(1) - channels * middle
    bright = excess > 0
    polarity = torch.where(bright, -1.0, 1.0)
    # polarity turns moments round; transposing last puts the larger one first
    mirrored = (right * polarity > 0).long() + 2 * (down * polarity > 0).long()
    transposed = right.abs() > down.abs()
    code = mirrored + 4 * transposed.long()
    tied = (excess == 0) | (down == 0) | (right == 0) | (down.abs() == right.abs())
    if colors:
        centred = (sums - middle) * polarity[:, None]
        red, green, blue = centred.unbind(1)
        tied |= (red == green) | (green == blue) | (red == blue)
        code += TURNS * _order_code(red, green, blue)
    forms = form_table(channels, size, colors).to(blocks.device)
    found = flat.gather(1, forms[code]) ^ (bright.to(torch.uint8) * 255)[:, None]
    doubtful = tied.nonzero().squeeze(1)
    for some in torch.split(doubtful, _TIED_AT_A_TIME):
        found[some] = _least(flat[some], forms, channels, size)
    return found.view_as(blocks)


def _order_code(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Which of the orders of ``itertools.permutations`` sorts three different numbers."""
    first = torch.where(
        (red < green) & (red < blue), 0, torch.where(green < torch.minimum(red, blue), 1, 2)
    )
    # of the two that remain, in the order R, G, B: whether the latter comes first
    later = torch.where(first == 0, blue < green, torch.where(first == 1, blue < red, green < red))
    return 2 * first + later.long()


def _least(flat: Tensor, forms: Tensor, channels: int, size: int) -> Tensor:
    """The least of all forms: uint8 (K, B) to the same."""
    every = flat[:, forms]  # (K, forms, B)
    every = torch.cat((every, 255 - every), dim=1)
    figures = (every.double() @ _figures(channels, size).to(flat.device)).long()
    total = figures[..., :channels].sum(-1, keepdim=True)
    columns = torch.cat((total, figures, as_words(every)), dim=-1)
    candidates = torch.ones_like(columns[..., 0], dtype=torch.bool)
    for column in columns.unbind(-1):
        least = column.masked_fill(~candidates, torch.iinfo(torch.int64).max)
        candidates &= least == least.amin(1, keepdim=True)
    chosen = candidates.long().argmax(1)
    return every[torch.arange(len(flat), device=flat.device), chosen]


@cache
def form_table(channels: int, size: int, colors: bool) -> Tensor:
    """The source position of every byte in every form but for polarity.

    Returns:
        int64 (8 or 48, C·size²); the code of a form is turn + 8 · order of colours.
    """
    turns = turn_table(size)[0]  # (8, size²)
    orders = list(permutations(range(channels))) if colors else [tuple(range(channels))]
    planes = torch.tensor(orders)[:, None, :, None] * size * size  # (orders, 1, C, 1)
    return (planes + turns[None, :, None, :]).reshape(-1, channels * size * size)


@cache
def _figures(channels: int, size: int) -> Tensor:
    """Weights that give the sum of every channel, then the vertical and the horizontal moment of
    all: float64 (C·size², C + 2). Floats are fast, and exact for integers of this size."""
    place = torch.arange(size, dtype=torch.float64) * 2 - (size - 1)
    down = place[:, None].expand(size, size).reshape(1, -1).expand(channels, -1).reshape(-1, 1)
    right = place.repeat(math.prod((channels, size)))[:, None]
    each = torch.eye(channels, dtype=torch.float64).repeat_interleave(size * size, dim=0)
    return torch.cat((each, down, right), dim=1)
