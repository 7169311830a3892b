"""Jigsaw puzzles of square blocks that may be turned, mirrored, negated and recoloured.

Pure functions on many puzzles at once. A puzzle is n blocks that fill a grid; its solution says for
each place which block lies there, and in which form. Solutions are told apart only up to forms of
the whole: a puzzle that is turned as a whole fits as well as before.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

import torch
from torch import Tensor

from fedenc.ciphers import functional

Change = tuple[bool, tuple[int, ...]]
Solution = tuple[Tensor, Tensor]  # int64 (N, n) twice: the block at each place, and its form

TURNS = 8  # symmetries of the square: codes of ``functional.turn_blocks``
TRANSPOSE = 4  # one of them
_MIRROR = 1
_MOST = 1 << 21  # floats: costs of placements that are kept at a time, which bounds time as well
_EQUAL = 1e-4  # scores closer than this are taken for one solution, come upon in another order


@dataclass(frozen=True)
class Forms:
    """What a cipher may have done to a block, as a group: a turn, and a change of its values.

    Attributes:
        turned: any of the eight symmetries of the square, or none.
        negated: all values complemented, or not.
        recoloured: the three channels in any order, or as they are.
    """

    turned: bool = False
    negated: bool = False
    recoloured: bool = False

    @property
    def turns(self) -> int:
        """T."""
        return TURNS if self.turned else 1

    @cached_property
    def changes(self) -> list[Change]:
        """(negate, source of each channel) of the V changes of values; the first is none."""
        orders = list(permutations(range(3))) if self.recoloured else [()]
        return list(product((False, True) if self.negated else (False,), orders))

    @property
    def count(self) -> int:
        """T·V; form f is turn f // V, then change f % V."""
        return self.turns * len(self.changes)

    @cached_property
    def between(self) -> Tensor:
        """int64 (V, V): change ``b`` as seen from ``a``: what comes before a to make b, a⁻¹·b."""
        numbers = {change: number for number, change in enumerate(self.changes)}

        def seen(a: Change, b: Change) -> int:
            # (a·x)[k] = x[a[k]], hence (a⁻¹·b·x)[a[k]] = x[b[k]]
            order = tuple(source for _, source in sorted(zip(a[1], b[1], strict=True)))
            return numbers[a[0] != b[0], order]

        return torch.tensor([[seen(a, b) for b in self.changes] for a in self.changes])

    def change(self, values: Tensor, dim: int, *, whole: int) -> Tensor:
        """All changes, stacked in front: (V, *values.shape).

        Args:
            values: with channels along ``dim``.
            dim: 0 or more.
            whole: the sum of a value and its complement.
        """
        changed = []
        for negate, order in self.changes:
            new = values.index_select(dim, torch.tensor(order)) if order else values
            changed.append(whole - new if negate else new)
        return torch.stack(changed)


def _composition() -> Tensor:
    """int64 (8, 8): the turn that a first and then a second turn are."""
    every = torch.arange(TURNS)
    corners = torch.arange(4).view(1, 1, 1, 2, 2).expand(1, TURNS, 1, 2, 2)
    once = functional.turn_blocks(corners, every[None])  # (1, 8, 1, 2, 2), a 2×2 block each way
    twice = functional.turn_blocks(
        once.repeat_interleave(TURNS, 1), every.repeat(TURNS)[None]
    ).view(TURNS * TURNS, 1, 4)
    return (twice == once.view(1, TURNS, 4)).all(2).long().argmax(1).view(TURNS, TURNS)


AFTER = _composition()
INVERSE = (AFTER == 0).long().argmax(1)  # int64 (8,): the turn that undoes each
# The right side of a block in turn t is its side t. Its left, lower and upper sides are its right
# side in other turns, read from top to bottom and from left to right.
_RIGHT = torch.arange(TURNS)
_LEFT = AFTER[:, _MIRROR]
_LOWER = AFTER[:, TRANSPOSE]
_UPPER = AFTER[_LOWER, _MIRROR]
# (rows down, columns right) to a neighbour, its side that touches, the side that it touches
_NEIGHBOURS = (
    (0, 1, _LEFT, _RIGHT),
    (0, -1, _RIGHT, _LEFT),
    (1, 0, _UPPER, _LOWER),
    (-1, 0, _LOWER, _UPPER),
)


def differences(blocks: Tensor, forms: Forms) -> Tensor:
    """How badly sides of blocks fit each other: Mahalanobis gradient compatibility.

    Gallagher, "Jigsaw puzzles with pieces of unknown orientation", CVPR 2012, §3: what the gradient
    across a border differs from the gradients beside it, relative to their covariance. His dummy
    gradients, which keep the covariance of a flat block regular, are a multiple of the identity
    here, so that no colour is special.

    Args:
        blocks: uint8 (N, n, C, s, s).
        forms: what may have been done to each.

    Returns:
        float32 (N, n, 8, n, 8, V), at least 0: side t of block i beside side r of block j, whose
        values are changed by v relative to those of i.
    """
    count, each = blocks.shape[:2]
    turned = functional.turn_blocks(
        blocks.repeat_interleave(TURNS, 1), torch.arange(TURNS).repeat(each)[None]
    )
    # (N, n·8, s, C), centred, so that a complement is a change of sign
    outer, inner = (turned[..., k].transpose(2, 3).float() - 127.5 for k in (-1, -2))
    found = _mahalanobis(outer, inner, forms.change(outer, 3, whole=0))  # (V, N, n·8, n·8)
    # and the same seen from the other side: i beside j, changed back
    found = found + found[forms.between[:, 0]].transpose(2, 3)
    return found.clamp_min_(0).permute(1, 2, 3, 0).reshape(count, each, TURNS, each, TURNS, -1)


def _mahalanobis(outer: Tensor, inner: Tensor, others: Tensor) -> Tensor:
    """float32 (V, N, E, E): Σ (b − a − μ)ᵀ S⁻¹ (b − a − μ) over the rows a of every side ``outer``
    (N, E, s, C) and b of every side in ``others`` (V, N, E, s, C); μ and S are mean and covariance
    of the gradients from ``inner`` to ``outer``. Multiplied out, it is a product of matrices."""
    size, channels = outer.shape[2:]
    gradients = outer - inner
    mean = gradients.mean(2, keepdim=True)
    spread = gradients - mean
    covariance = spread.mT @ spread / size + torch.eye(channels)
    precision = torch.linalg.inv(covariance)  # (N, E, C, C)
    ahead = outer + mean
    weighed = ahead @ precision
    constant = (weighed * ahead).sum((2, 3))  # (N, E)
    own = torch.cat((precision.flatten(2), -2 * weighed.flatten(2), constant[..., None]), 2)
    squares = others.mT @ others  # (V, N, E, C, C)
    ones = torch.ones_like(others[..., 0, :1])
    return own @ torch.cat((squares.flatten(3), others.flatten(3), ones), 3).mT


def scores(found: Tensor) -> Tensor:
    """``differences`` as scores of borders, of the same shape: the lower, the better.

    log D, relative to the r-th best fit of either side, r = n/2. So a fit counts by how much it
    stands out, and sides that fit many others, as those of flat blocks do, say little.
    """
    count, each = found.shape[:2]
    logs = found.add(1).log_()
    itself = torch.eye(each, dtype=torch.bool).view(1, each, 1, each, 1, 1)
    logs.masked_fill_(itself, torch.inf)
    usual = logs.flatten(3).flatten(1, 2).kthvalue(max(1, each // 2), dim=2).values
    usual = usual.view(count, each, TURNS) / 2
    return logs - usual[:, :, :, None, None, None] - usual[:, None, None, :, :, None]


def solve(table: Tensor, grid: tuple[int, int], forms: Forms, *, width: int) -> Solution:
    """Put puzzles together, the most certain block first.

    Beginnings of a solution grow by one block at a time, at any free place beside those that lie,
    within the grid's outline. Of all that may come next, the ``width`` best are kept, by the sum of
    their borders' scores: a beam search.

    Args:
        table: float32 (N, n, 8, n, 8, V) of ``scores``; n at least 2.
        grid: (rows, columns) of n places.
        forms: of a block.
        width: beginnings kept, at least 1; fewer of puzzles that are so large that their costs
            would not fit in memory.

    Returns:
        The solutions. Each is in an arbitrary form as a whole, but of the grid's outline.
    """
    each = (2 * grid[0] - 1) * (2 * grid[1] - 1) * table.shape[1] * forms.count
    width = max(1, min(width, _MOST // each))
    count = max(1, _MOST // (each * width))
    parts = [_solve(part, grid, forms, width) for part in torch.split(table, count)]
    placed, formed = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return placed, formed


def _solve(table: Tensor, grid: tuple[int, int], forms: Forms, width: int) -> Solution:
    """``solve`` for as many puzzles as fit in memory. In shapes, B is the number of beginnings, K
    of cells of a canvas around the first block, which lies in its middle."""
    each = table.shape[1]
    turns, changes = forms.turns, len(forms.changes)
    high, wide = 2 * grid[0] - 1, 2 * grid[1] - 1
    cells = high * wide
    rows, columns = torch.arange(cells) // wide, torch.arange(cells) % wide
    tables = [  # (N, n·T, n, T, V): costs of blocks beside one that lies there
        table[:, :, theirs[:turns]][..., own[:turns], :].flatten(1, 2)
        for _, _, own, theirs in _NEIGHBOURS
    ]
    puzzle = torch.arange(len(table))[:, None]
    # Beginnings are the blocks whose best fit stands out most: upright, and in oblong grids lying
    block = table.flatten(2).amin(2).topk(min(each, width), largest=False).indices
    form = torch.zeros_like(block)
    if forms.turned and grid[0] != grid[1]:
        form = torch.cat((form, torch.full_like(form, TRANSPOSE * changes)), 1)
        block = block.repeat(1, 2)
    cell = torch.full_like(block, cells // 2)
    total = torch.zeros(block.shape)
    costs = torch.zeros(*block.shape, cells, each * forms.count)
    near = torch.zeros(*block.shape, cells, dtype=torch.bool)
    lies = torch.full((*block.shape, cells), -1)
    how = torch.zeros_like(lies)
    free = torch.ones(*block.shape, each, dtype=torch.bool)
    box = torch.stack((rows[cell], rows[cell], columns[cell], columns[cell]), 2)
    for left in range(each - 1, -1, -1):
        lies.scatter_(2, cell[..., None], block[..., None])
        how.scatter_(2, cell[..., None], form[..., None])
        free.scatter_(2, block[..., None], False)
        row, column = rows[cell], columns[cell]
        box = torch.stack(
            (
                *(row.minimum(box[..., 0]), row.maximum(box[..., 1])),
                *(column.minimum(box[..., 2]), column.maximum(box[..., 3])),
            ),
            2,
        )
        if not left:
            break
        beam = torch.arange(block.shape[1]).expand_as(block)
        for (down, right, _, _), costs_beside in zip(_NEIGHBOURS, tables, strict=True):
            inside = (row + down >= 0) & (row + down < high)
            inside &= (column + right >= 0) & (column + right < wide)
            beside = torch.where(inside, cell + down * wide + right, cell)
            more = costs_beside[puzzle, block * turns + form // changes]  # (N, B, n, T, V)
            if changes > 1:
                seen = forms.between[form % changes][:, :, None, None]
                more = more.gather(4, seen.expand(more.shape))
            costs[puzzle, beam, beside] += more.flatten(2)
            near[puzzle, beam, beside] = True
        height = box[..., 1:2].maximum(rows) - box[..., 0:1].minimum(rows)  # (N, B, K)
        breadth = box[..., 3:4].maximum(columns) - box[..., 2:3].minimum(columns)
        fits = near & (lies < 0) & (height < grid[0]) & (breadth < grid[1])
        possible = fits[..., None] & free[:, :, None]  # (N, B, K, n)
        sums = torch.where(possible, total[..., None, None], torch.inf)
        options = costs.view(*possible.shape, forms.count) + sums[..., None]
        total, chosen = _best(options.flatten(1), width)
        parent = chosen // (cells * each * forms.count)
        cell = chosen // (each * forms.count) % cells
        block = chosen // forms.count % each
        form = chosen % forms.count
        costs, near, lies, how, free, box = (
            t[puzzle, parent] for t in (costs, near, lies, how, free, box)
        )
    # the best one, cut out of its canvas
    place = torch.arange(each)
    first = box[:, 0, 0:1] * wide + box[:, 0, 2:3]
    source = first + place // grid[1] * wide + place % grid[1]
    return lies[:, 0].gather(1, source), how[:, 0].gather(1, source)


def _best(options: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The ``width`` lowest of float (N, M), ascending, and where they are; one of equal ones."""
    lowest, where = options.topk(min(6 * width, options.shape[1]), largest=False)
    again = lowest.diff(dim=1) < _EQUAL
    lowest[:, 1:].masked_fill_(again, torch.inf)
    lowest, kept = lowest.topk(min(width, lowest.shape[1]), largest=False)
    some = lowest.isfinite().any(0)
    return lowest[:, some], where.gather(1, kept)[:, some]


def turn_grid(values: Tensor, turn: int) -> Tensor:
    """Turn grids (N, u, v) as ``functional.turn_blocks`` turns blocks."""
    values = values.flip(2) if turn & 1 else values
    values = values.flip(1) if turn & 2 else values
    return values.transpose(1, 2) if turn & 4 else values


def as_a_whole(solution: Solution, grid: tuple[int, int], forms: Forms, form: Tensor) -> Solution:
    """Solutions in form ``form``, int64 (N,), of the whole; its turns keep the grid's outline."""
    changes = len(forms.changes)
    turn, change = form // changes, form % changes
    placed, formed = (values.reshape(-1, *grid).clone() for values in solution)
    for code in set(turn.tolist()):
        rows = turn == code
        placed[rows] = turn_grid(placed[rows], code)
        formed[rows] = turn_grid(formed[rows], code)
    formed = formed.flatten(1)
    turned = AFTER[formed // changes, turn[:, None]]
    # g·u is what u is as seen from g⁻¹
    changed = forms.between[forms.between[change, 0][:, None], formed % changes]
    return placed.flatten(1), turned * changes + changed


def assemble(blocks: Tensor, solution: Solution, forms: Forms, shape: tuple[int, int]) -> Tensor:
    """Put blocks, uint8 (N, n, C, s, s), where solutions (one each, or one for all) say: uint8
    (N, C, *shape)."""
    placed, formed = solution
    turn, change = formed // len(forms.changes), formed % len(forms.changes)
    laid = functional.turn_blocks(functional.permute_blocks(blocks, placed), turn)
    every = forms.change(laid, 2, whole=255)  # (V, N, n, C, s, s)
    index = change.expand(len(laid), -1)[None, ..., None, None, None].expand_as(every[:1])
    return functional.merge_blocks(every.gather(0, index)[0], *shape)
