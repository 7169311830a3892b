"""Putting blocks back in place: jigsaw puzzles of which many images share the solution.

The values at the border of a block and those of its true neighbour rise and fall together over the
images. Turned and complemented blocks are placed in the same way: in all turns, and by the sign.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedenc.attacks.correlation import standardised
from fedenc.ciphers import functional
from fedenc.ciphers.blocks import TURNS

_COMPANY = 0.1  # what another neighbour is worth, in terms of correlation

Cell = tuple[int, int]


@dataclass(frozen=True)
class Arrangement:
    """Blocks on a grid of rows × columns cells, row by row; M cells.

    Attributes:
        block: int64 (M,), which block lies there.
        turn: int64 (M,), the code by which it was turned to fit.
        sign: float (M,), −1 where it was complemented to fit.
    """

    block: Tensor
    turn: Tensor
    sign: Tensor


def assemble(blocks: Tensor, rows: int, columns: int, *, turned: bool) -> Arrangement:
    """Arrange blocks by correlations of their borders.

    From the pair of blocks that fits best, the block that fits best at any free place beside those
    already placed is added, until the grid is full.

    Args:
        blocks: float (N, M, size, size), the same M blocks of N images; M = rows·columns.
        rows: of the grid.
        columns: of the grid.
        turned: blocks may have been turned and complemented; then the arrangement is right up to
            turning and complementing all of it.
    """
    turns = TURNS if turned else 1
    beside, below = _fits(blocks, turns)
    count = blocks.shape[1]
    fits = {(0, 1): beside, (0, -1): beside.T, (1, 0): below, (-1, 0): below.T}
    pair = (beside.abs() if turned else beside).clone()
    pair.view(count, turns, count, turns).diagonal(dim1=0, dim2=2).fill_(-1)
    start = int(pair.argmax()) // (count * turns)
    placed: dict[Cell, tuple[int, float]] = {(0, 0): (start, 1.0)}
    free = torch.ones(count, turns, dtype=torch.bool)
    free[start // turns] = False
    while len(placed) < count:
        best, choice = -float("inf"), ((0, 0), 0, 1.0)
        for cell, near in _frontier(placed, rows, columns, turned).items():
            total = torch.stack([placed[n][1] * fits[_step(n, cell)][placed[n][0]] for n in near])
            mean = total.mean(0)
            score = (mean.abs() if turned else mean) + _COMPANY * len(near)
            score = score.masked_fill(~free.flatten(), -float("inf"))
            if float(score.max()) > best:
                form = int(score.argmax())
                sign = -1.0 if turned and mean[form] < 0 else 1.0
                best, choice = float(score[form]), (cell, form, sign)
        cell, form, sign = choice
        placed[cell] = form, sign
        free[form // turns] = False
    return _arranged(placed, turns, rows, columns)


def turn_cells(values: Tensor, code: int) -> Tensor:
    """Turn (rows, columns, ...) as ``functional.turn_blocks`` turns blocks."""
    values = values.flip(1) if code & 1 else values
    values = values.flip(0) if code & 2 else values
    return values.transpose(0, 1) if code & 4 else values


def composed() -> Tensor:
    """int64 (8, 8): the code of turning by the second code after the first."""
    probe = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 2, 2).repeat(1, TURNS, 1, 1, 1)
    codes = torch.arange(TURNS)
    once = functional.turn_blocks(probe, codes[None])
    table = torch.empty(TURNS, TURNS, dtype=torch.int64)
    for second in range(TURNS):
        twice = functional.turn_blocks(once, torch.full((1, TURNS), second))
        same = (twice[0, :, None] == once[0, None]).flatten(2).all(2)
        table[:, second] = same.byte().argmax(1)
    return table


def _fits(blocks: Tensor, turns: int) -> tuple[Tensor, Tensor]:
    """Mean correlations of borders, (M·turns, M·turns): of the right border of the first with the
    left one of the second, and of the bottom of the first with the top of the second."""
    forms = []
    for code in range(turns):
        turned = turn_cells(blocks.permute(2, 3, 0, 1), code).permute(2, 3, 0, 1)
        forms.append(turned)
    scaled = standardised(torch.stack(forms, 2).flatten(1, 2))  # (N, M·turns, size, size)
    count, size = len(scaled), scaled.shape[-1]
    right, left = scaled[..., -1], scaled[..., 0]
    bottom, top = scaled[..., -1, :], scaled[..., 0, :]
    return (
        torch.einsum("nap,nbp->ab", right, left) / (count * size),
        torch.einsum("nap,nbp->ab", bottom, top) / (count * size),
    )


def _step(start: Cell, end: Cell) -> Cell:
    return end[0] - start[0], end[1] - start[1]


def _frontier(
    placed: dict[Cell, tuple[int, float]], rows: int, columns: int, turned: bool
) -> dict[Cell, list[Cell]]:
    """Free cells beside placed ones that the grid has room for, and their placed neighbours."""
    found: dict[Cell, list[Cell]] = {}
    for row, column in placed:
        for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            cell = row + step[0], column + step[1]
            if cell not in placed:
                found.setdefault(cell, []).append((row, column))
    room = [(rows, columns), (columns, rows)] if turned else [(rows, columns)]
    low = [min(cell[axis] for cell in placed) for axis in (0, 1)]
    high = [max(cell[axis] for cell in placed) for axis in (0, 1)]

    def fits(cell: Cell) -> bool:
        size = [max(high[axis], cell[axis]) - min(low[axis], cell[axis]) + 1 for axis in (0, 1)]
        return any(size[0] <= limit[0] and size[1] <= limit[1] for limit in room)

    return {cell: near for cell, near in found.items() if fits(cell)}


def _arranged(
    placed: dict[Cell, tuple[int, float]], turns: int, rows: int, columns: int
) -> Arrangement:
    order = sorted(placed)
    form = torch.tensor([placed[cell][0] for cell in order])
    sign = torch.tensor([placed[cell][1] for cell in order])
    width = 1 + max(cell[1] for cell in order) - min(cell[1] for cell in order)
    found = Arrangement(form // turns, form % turns, sign)
    if width == columns:
        return found
    return rearranged(found, 4, (columns, rows))  # it was put together lying on its side


def rearranged(found: Arrangement, code: int, grid: tuple[int, int]) -> Arrangement:
    """Turn a whole arrangement on a grid of so many rows and columns."""

    def moved(values: Tensor) -> Tensor:
        return turn_cells(values.view(grid), code).flatten()

    return Arrangement(moved(found.block), composed()[moved(found.turn), code], moved(found.sign))
