"""The canonical form of blocks that encryption-then-compression (EtC) turns and complements.

A block has 8 turns × 2 polarities × 6 orders of its colours = 96 forms. The canonical one is the
least by these figures, one after the other:

1. the sum of its bytes: it is the darker of the two polarities;
2. the sums of its channels, in order: they ascend;
3. its vertical, then its horizontal first moment: the upper left is the brighter corner, and
   brightness falls at least as much from top to bottom as from left to right;
4. its bytes, as words of eight.

The first three nearly always decide. They follow from a few sums, so no form is ever made but that
one; only where some figures are equal (plain areas, gray images) are the forms that share the least
ones compared.
"""

import math
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from fedenc.images.blocks import turn_table
from fedenc.orbits.rows import as_words, lexicographic

TURNS = 8


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
    figures = flat.double() @ _weights(channels, size).to(blocks.device)  # exact: below 2^53
    sums, moments = figures[:, :channels] - 255 / 2 * size * size, figures[:, channels:]
    total, (down, right) = sums.sum(1), moments.unbind(1)
    bright = total > 0
    polarity = torch.where(bright, -1.0, 1.0)
    tied = (total == 0) | (down == 0) | (right == 0) | (down.abs() == right.abs())
    # the signs of a turn come first, and transposing last puts the larger moment first
    code = (right * polarity > 0).long() + 2 * (down * polarity > 0).long()
    code += 4 * (right.abs() > down.abs()).long()
    if colors:
        red, green, blue = (sums * polarity[:, None]).unbind(1)
        tied |= (red == green) | (green == blue) | (red == blue)
        code += TURNS * _order_code(red, green, blue)
    table = _table(channels, size, colors).to(blocks.device)
    found = _form(flat, code + len(table) * bright.long(), table)
    doubtful = tied.nonzero().squeeze(1)
    if len(doubtful):
        figures = _figures(sums[doubtful], moments[doubtful], colors)
        found[doubtful] = _least(flat[doubtful], figures, table)
    return found.view_as(blocks)


def _form(flat: Tensor, code: Tensor, table: Tensor) -> Tensor:
    """One form of every block: uint8 (K, B), its code (K,), and the sources to the same."""
    turned = flat.gather(1, table[code % len(table)])
    return turned ^ ((code >= len(table)).to(torch.uint8) * 255)[:, None]


def _order_code(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Which of the orders of ``itertools.permutations`` sorts three different numbers."""
    first = torch.where((red < green) & (red < blue), 0, torch.where(green < blue, 1, 2))
    # of the two that remain, in the order R, G, B: whether the latter comes first
    later = torch.where(first == 0, blue < green, torch.where(first == 1, blue < red, green < red))
    return 2 * first + later.long()


def _figures(sums: Tensor, moments: Tensor, colors: bool) -> Tensor:
    """The first three figures of every form.

    Args:
        sums: float64 (K, C), of the channels less the middle.
        moments: float64 (K, 2), vertical and horizontal.
        colors: the order of the channels varies.

    Returns:
        float64 (C + 3, K, forms), forms in the order of their codes.
    """
    count, channels = sums.shape
    ordered = sums.T[torch.tensor(_orders(channels, colors)).T]  # (C, orders, K)
    signs = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1]], device=sums.device)
    mirrored = moments.T[:, :, None] * signs[:, None]  # (2, K, 4)
    turned = torch.cat((mirrored, mirrored.flip(0)), dim=2)  # (2, K, 8)
    shape = count, ordered.shape[1], TURNS
    figures = torch.cat(
        (
            sums.sum(1)[None, :, None, None].expand(1, *shape),
            ordered.transpose(1, 2)[..., None].expand(channels, *shape),
            turned[:, :, None].expand(2, *shape),
        )
    ).flatten(2)
    return torch.cat((figures, -figures), dim=2)


def _least(flat: Tensor, figures: Tensor, table: Tensor) -> Tensor:
    """The least of all forms.

    Args:
        flat: uint8 (K, B).
        figures: from ``_figures``.
        table: from ``_table``.

    Returns:
        uint8 (K, B).
    """
    candidates = torch.ones(figures.shape[1:], dtype=torch.bool, device=flat.device)
    for figure in figures:
        left = figure.masked_fill(~candidates, math.inf)
        candidates &= left == left.amin(1, keepdim=True)
    block, code = candidates.nonzero().unbind(1)
    forms = _form(flat[block], code, table)
    order = lexicographic(block[None], as_words(forms)[None])[0]
    block = block[order]
    first = torch.ones_like(block, dtype=torch.bool)
    first[1:] = block[1:] != block[:-1]
    return forms[order[first]]


def _orders(channels: int, colors: bool) -> list[tuple[int, ...]]:
    return list(permutations(range(channels))) if colors else [tuple(range(channels))]


@cache
def _table(channels: int, size: int, colors: bool) -> Tensor:
    """The source position of every byte in the forms of one polarity.

    Returns:
        int64 (F, C·size²), F = 8 or 48. The code of a form is turn + 8 · order of colours, and F
        more for the other polarity.
    """
    turns = turn_table(size)[0]  # (8, size²)
    orders = torch.tensor(_orders(channels, colors))
    planes = orders[:, None, :, None] * size * size  # (orders, 1, C, 1)
    return (planes + turns[None, :, None, :]).reshape(-1, channels * size * size)


@cache
def _weights(channels: int, size: int) -> Tensor:
    """Weights that give the sum of every channel, then the vertical and the horizontal moment of
    all: float64 (C·size², C + 2). Floats are fast, and exact for integers of this size."""
    place = torch.arange(size, dtype=torch.float64) * 2 - (size - 1)
    down = place[:, None].expand(size, size).reshape(1, -1).expand(channels, -1).reshape(-1, 1)
    right = place.repeat(math.prod((channels, size)))[:, None]
    each = torch.eye(channels, dtype=torch.float64).repeat_interleave(size * size, dim=0)
    return torch.cat((each, down, right), dim=1)
