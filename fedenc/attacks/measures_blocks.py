"""How much of a puzzle of blocks is solved: for attacks on block scrambling.

Published solvers are measured by three shares (Chuman, Kurihara & Kiya, IEICE Trans. Inf. & Syst.
2018; Gallagher, CVPR 2012; Cho, Avidan & Freeman, CVPR 2010): Dc of blocks at their place, Nc of
adjacencies that are right, and Lc, the largest part that is joined rightly.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fedenc.attacks.puzzle import Forms
from fedenc.ciphers import functional
from fedenc.errors import AttackError


class BlockScores(NamedTuple):
    """float64 (N,) each, from 0 to 1."""

    direct: Tensor  # Dc: blocks at the right place
    neighbour: Tensor  # Nc: right adjacencies, of 2n − u − v
    largest: Tensor  # Lc: the largest rightly joined component


@dataclass(frozen=True)
class _Grid:
    rows: int
    columns: int

    @property
    def pairs(self) -> int:
        return 2 * self.rows * self.columns - self.rows - self.columns


def block_scores(
    estimate: Tensor, truth: Tensor, block: int, forms: Forms | None = None, *, tolerance: float = 0
) -> BlockScores:
    """Dc, Nc and Lc of each image.

    A block counts where its pixels are the true ones, so that equal blocks may be exchanged. A
    solver can find an image only up to ``forms`` of the whole; the best of them is taken.

    Args:
        estimate: uint8 (N, C, H, W), H and W multiples of ``block``.
        truth: uint8 of the same shape.
        block: pixels a side.
        forms: of a block under the cipher; None: none but itself.
        tolerance: mean absolute difference up to which blocks are taken for equal.

    Raises:
        AttackError: shapes that do not fit.
    """
    if estimate.shape != truth.shape or any(side % block for side in truth.shape[2:]):
        raise AttackError(
            f"estimate is {list(estimate.shape)} and truth {list(truth.shape)}; expected equal "
            f"shapes of whole blocks of {block}×{block}"
        )
    forms = forms or Forms()
    found = functional.split_blocks(estimate, block).flatten(2).float()  # (N, n, D)
    grid = _Grid(*(side // block for side in estimate.shape[2:]))
    best = [torch.zeros(len(truth), dtype=torch.float64) for _ in range(3)]
    joined = torch.zeros(len(truth), grid.pairs, dtype=torch.bool)
    for turn in range(forms.turns):
        whole = functional.turn_blocks(truth[:, None], torch.tensor([[turn]]))[:, 0]
        across = _Grid(*(side // block for side in whole.shape[2:]))
        plain = functional.split_blocks(whole, block).float()
        for changed in forms.change(plain, 2, whole=255):
            apart = torch.cdist(found, changed.flatten(2), p=1)
            same = apart <= tolerance * found.shape[2]  # (N, n, n)
            if across == grid:
                direct = same.diagonal(dim1=1, dim2=2).double().mean(1)
                best[0] = torch.maximum(best[0], direct)
            joined |= _joined(same, grid, across)
            best[2] = torch.maximum(best[2], _largest(same, grid, across, best[2]))
    best[1] = joined.double().mean(1) if grid.pairs else best[0]
    return BlockScores(*best)


def _joined(same: Tensor, grid: _Grid, across: _Grid) -> Tensor:
    """bool (N, 2n − u − v): neighbours in the estimate that are neighbours in the true image.

    ``same``: bool (N, n, n), block p of the estimate is block q of the true image, whose blocks lie
    in the grid ``across``.
    """
    count = len(same)
    maps = same.view(count, grid.rows, grid.columns, across.rows, across.columns)
    beside = maps[:, :, :-1, :, :-1] & maps[:, :, 1:, :, 1:]
    below = maps[:, :-1, :, :-1] & maps[:, 1:, :, 1:]
    return torch.cat([m.flatten(3).any(3).flatten(1) for m in (beside, below)], 1)


def _largest(same: Tensor, grid: _Grid, across: _Grid, least: Tensor) -> Tensor:
    """float64 (N,): the share of blocks in the largest component of blocks that lie together as in
    the true image, shifted as a whole; 0 where it is not above ``least``."""
    count, each = same.shape[:2]
    place = torch.arange(each)
    row, column = place // grid.columns, place % grid.columns
    row_across, column_across = place // across.columns, place % across.columns
    down = row_across[None] - row[:, None] + grid.rows - 1
    right = column_across[None] - column[:, None] + grid.columns - 1
    wide = grid.columns + across.columns - 1
    shift = down * wide + right  # (n, n) of block p to block q
    shifts = (grid.rows + across.rows - 1) * wide
    hits = torch.zeros(count, shifts, each, dtype=torch.bool)
    puzzle, p, q = same.nonzero(as_tuple=True)
    hits[puzzle, shift[p, q], p] = True
    worth = hits.sum(2) > least[:, None] * each  # (N, shifts)
    sizes = _component(hits[worth].view(-1, grid.rows, grid.columns))
    shares = torch.zeros(worth.shape, dtype=torch.float64)
    shares[worth] = sizes.double() / each
    return shares.amax(1)


def _component(marked: Tensor) -> Tensor:
    """int64 (K,): the size of the largest four-connected component in each of bool (K, u, v)."""
    count, rows, columns = marked.shape
    numbers = torch.arange(1, rows * columns + 1).view(1, rows, columns)
    labels = marked * numbers
    while True:
        wide = torch.nn.functional.pad(labels, (1, 1, 1, 1))
        near = torch.stack(
            (labels, wide[:, :-2, 1:-1], wide[:, 2:, 1:-1], wide[:, 1:-1, :-2], wide[:, 1:-1, 2:])
        )
        spread = near.amax(0) * marked
        if torch.equal(spread, labels):
            break
        labels = spread
    sizes = torch.zeros(count, rows * columns + 1, dtype=torch.int64)
    sizes.scatter_add_(1, labels.flatten(1), torch.ones_like(labels).flatten(1))
    return sizes[:, 1:].amax(1) if count else torch.zeros(0, dtype=torch.int64)
