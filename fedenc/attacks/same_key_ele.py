"""A shared key of ELE from ciphertexts alone, although every block has a key of its own."""

import torch
from torch import Tensor

from fedenc.attacks.assembly import turn_cells
from fedenc.attacks.correlation import (
    colours,
    falling,
    grid_edges,
    negative,
    principal_component,
    red_green_blue,
    signs,
    standardised,
)
from fedenc.attacks.recovery import Recovered
from fedenc.attacks.same_key_le import cut_blocks, joined, paired, steps
from fedenc.ciphers import functional
from fedenc.ciphers.blocks import TURNS
from fedenc.ciphers.ele import BLOCK

# How like two blocks are that lie so many rows and columns apart: the mean of the largest
# correlations between their half-bytes, as it usually is in photographs of 32×32 pixels.
_LIKENESS = {(0, 1): 0.91, (1, 1): 0.79, (0, 2): 0.63, (1, 2): 0.55, (2, 2): 0.43}
_LARGEST = 12  # correlations of two blocks that count: those of their nearest pixels
_COMPANY = 0.004  # what another placed block nearby is worth, in squared likeness
_STARTS = 16
_SWAPS = 200

Cell = tuple[int, int]


def ele(encrypted: Tensor) -> Recovered:
    """Places of blocks, and permutation and reversals of half-bytes in each of them.

    Blocks are put where their half-bytes correlate as those of neighbours do. From there on as for
    LE, but for each block by itself. The whole picture is turned upright; whether it is mirrored is
    not known.

    Args:
        encrypted: uint8 (N, C, H, W), N images under one key.
    """
    channels, height, width = encrypted.shape[1:]
    grid = height // BLOCK, width // BLOCK
    nibbles = functional.split_nibbles(functional.split_blocks(encrypted, BLOCK)).float()
    loadings = torch.stack([principal_component(one)[1] for one in nibbles.transpose(0, 1)])
    ranked = loadings.abs().argsort(dim=1, descending=True)  # (M, positions)
    upper, lower = ranked.chunk(2, dim=1)
    sign = loadings.sign()

    chosen = nibbles.gather(2, upper.expand(len(nibbles), -1, -1))  # (N, M, K)
    block = _arranged(_likeness(standardised(chosen)), *grid)
    brightness = (standardised(chosen) * sign.gather(1, upper)).mean(2)
    sign[block] *= signs(brightness[:, block, None], *grid_edges(*grid))
    values = torch.where(sign < 0, 15 - nibbles, nibbles)
    bright = values.gather(2, upper.expand(len(nibbles), -1, -1)).mean(2)  # (N, M)
    if negative(bright):
        sign, values, bright = -sign, 15 - values, 15 - bright
    block = max(
        (
            turn_cells(block.view(grid), code).flatten()
            for code in range(TURNS if grid[0] == grid[1] else TURNS // 2)
        ),
        key=lambda one: falling(bright[:, one].mean(0).view(grid)),
    )

    upper, lower, placed = upper[block], lower[block], values[:, block]
    upper = _in_pixels(placed, upper, grid, channels)
    if channels == 3:
        upper = _in_colour(placed, upper, grid)
    order = torch.empty_like(ranked)
    half = upper.shape[1]
    order.scatter_(1, upper, torch.arange(half, 2 * half).expand(upper.shape))
    pictures = joined(_taken(placed, upper).view(-1, *grid, half), channels)
    expected = cut_blocks(steps(pictures)).view(len(placed), -1, half)
    low = _taken(nibbles[:, block], lower)
    match = torch.einsum("nmk,nml->mkl", standardised(expected), standardised(low))
    sign = sign[block]
    for number, one in enumerate(match):
        here = lower[number]
        order[number, here], sign[number, here] = paired(one)
    flips = torch.zeros_like(sign).scatter_(1, order, (sign < 0).float()).to(torch.uint8)
    parts = order[None], flips[None], functional.invert_permutation(block)[None]
    return Recovered(parts, tuple(part.long() for part in parts))


def _taken(values: Tensor, positions: Tensor) -> Tensor:
    """Float (N, M, P) at int64 (M, K): (N, M, K)."""
    return values.gather(2, positions.expand(len(values), -1, -1))


def _likeness(scaled: Tensor) -> Tensor:
    """How near blocks (N, M, K) are to each other: (M, M), 0 on the diagonal."""
    count, blocks, positions = scaled.shape
    flat = scaled.flatten(1)
    found = torch.empty(blocks, blocks)
    for number in range(blocks):
        related = (scaled[:, number].T @ flat / count).abs()  # (K, M·K)
        pairs = related.view(positions, blocks, positions).transpose(0, 1).flatten(1)
        found[number] = pairs.topk(min(_LARGEST, pairs.shape[1]), dim=1).values.mean(1)
    return found.fill_diagonal_(0)


def _arranged(likeness: Tensor, rows: int, columns: int) -> Tensor:
    """Blocks in their places, row by row, up to turning all of it: int64 (M,).

    Grown from several blocks, then improved by swaps; the arrangement is taken under which likeness
    depends most on the distance alone.
    """
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    apart = (place[:, None] - place).abs().sort(dim=2).values
    distance = apart[..., 0] * max(rows, columns) + apart[..., 1]
    best, chosen = float("inf"), torch.arange(len(likeness))
    for first in torch.linspace(0, len(likeness) - 1, min(_STARTS, len(likeness))).long().tolist():
        blocks = _swapped(likeness, _grown(likeness, rows, columns, first), distance)
        arranged = likeness[blocks][:, blocks]
        cost = float((arranged - _by_distance(arranged, distance)).square().sum())
        if cost < best:
            best, chosen = cost, blocks
    return chosen


def _by_distance(arranged: Tensor, distance: Tensor) -> Tensor:
    """The mean of (M, M) over all pairs at the same distance."""
    size = int(distance.max()) + 1
    total = torch.zeros(size).index_add_(0, distance.flatten(), arranged.flatten())
    return (total / distance.flatten().bincount(minlength=size).clamp_min(1))[distance]


def _swapped(likeness: Tensor, blocks: Tensor, distance: Tensor) -> Tensor:
    """Swap blocks as long as likeness and its mean by distance go together better."""
    blocks = blocks.clone()
    for _ in range(_SWAPS):
        arranged = likeness[blocks][:, blocks]
        mean = _by_distance(arranged, distance).fill_diagonal_(0)
        product = arranged @ mean
        own = product.diagonal()
        gain = product + product.T - own[:, None] - own + 2 * arranged * mean
        if float(gain.max()) < 1e-5:
            break
        one, other = divmod(int(gain.argmax()), len(blocks))
        blocks[[one, other]] = blocks[[other, one]]
    return blocks


def _grown(likeness: Tensor, rows: int, columns: int, first: int) -> Tensor:
    """From one block and the one most like it, add what fits best at a free place beside them."""
    second = int(likeness[first].argmax())
    placed: dict[Cell, int] = {(0, 0): first, (0, 1): second}
    if max(rows, columns) < 2:
        return torch.tensor([first])
    taken = torch.zeros(len(likeness), dtype=torch.bool)
    taken[[first, second]] = True
    while len(placed) < len(likeness):
        best, choice = float("inf"), ((0, 0), 0)
        for cell in _beside(placed, rows, columns):
            near = {
                placed[other]: _LIKENESS[(min(apart), max(apart))]
                for other in placed
                if max(apart := (abs(other[0] - cell[0]), abs(other[1] - cell[1]))) <= 2
            }
            expected = torch.tensor(list(near.values()))[:, None]
            error = (likeness[list(near)] - expected).square()
            cost = (error * expected).sum(0) / expected.sum() - _COMPANY * len(near)
            cost = cost.masked_fill(taken, float("inf"))
            if float(cost.min()) < best:
                best, choice = float(cost.min()), (cell, int(cost.argmin()))
        placed[choice[0]] = choice[1]
        taken[choice[1]] = True
    blocks = torch.tensor([placed[cell] for cell in sorted(placed)])
    width = 1 + max(cell[1] for cell in placed) - min(cell[1] for cell in placed)
    return blocks if width == columns else blocks.view(columns, rows).T.flatten()


def _beside(placed: dict[Cell, int], rows: int, columns: int) -> list[Cell]:
    """Free cells beside placed ones that the grid has room for."""
    low = [min(cell[axis] for cell in placed) for axis in (0, 1)]
    high = [max(cell[axis] for cell in placed) for axis in (0, 1)]
    found = []
    for row, column in placed:
        for cell in ((row, column + 1), (row, column - 1), (row + 1, column), (row - 1, column)):
            size = [max(high[a], cell[a]) - min(low[a], cell[a]) + 1 for a in (0, 1)]
            fits = any(
                size[0] <= limit[0] and size[1] <= limit[1]
                for limit in ((rows, columns), (columns, rows))
            )
            if fits and cell not in placed and cell not in found:
                found.append(cell)
    return found


def _in_pixels(placed: Tensor, upper: Tensor, grid: Cell, channels: int) -> Tensor:
    """Order the upper half-bytes (M, K) of every block by pixel, row by row.

    As for LE, by what goes with the block to the right more than with the one to the left, and so
    on; at an edge by the one neighbour that there is.
    """
    scaled = standardised(_taken(placed, upper)).view(-1, *grid, upper.shape[1])
    mean = scaled.mean(3, keepdim=True)
    across, down = (torch.zeros(*grid, upper.shape[1]) for _ in range(2))
    across[:, :-1] += (scaled[:, :, :-1] * mean[:, :, 1:]).mean(0)
    across[:, 1:] -= (scaled[:, :, 1:] * mean[:, :, :-1]).mean(0)
    down[:-1] += (scaled[:, :-1] * mean[:, 1:]).mean(0)
    down[1:] -= (scaled[:, 1:] * mean[:, :-1]).mean(0)
    columns = across.flatten(0, 1).argsort(dim=1)  # (M, K)
    down = down.flatten(0, 1).gather(1, columns).view(len(upper), BLOCK, -1)
    columns = columns.view(down.shape).gather(2, down.argsort(dim=2))  # (M, column, rows·C)
    pixels = columns.view(len(upper), BLOCK, BLOCK, channels).transpose(1, 2)
    return upper.gather(1, pixels.flatten(1))


def _in_colour(placed: Tensor, upper: Tensor, grid: Cell) -> Tensor:
    """Order the three half-bytes of each pixel by colour, over all pixels of the image."""
    height, width = grid[0] * BLOCK, grid[1] * BLOCK
    pictures = joined(_taken(placed, upper).view(-1, *grid, upper.shape[1]), 3)
    where = colours(pictures.flatten(2).transpose(1, 2), *grid_edges(height, width))
    ordered = pictures.flatten(2).gather(1, where.T.expand(len(pictures), -1, -1))
    where = where[:, red_green_blue(ordered.view(pictures.shape))]
    cells = cut_blocks(where.T.reshape(1, 3, height, width)).view(len(upper), -1, 3)
    return upper.view(cells.shape).gather(2, cells).flatten(1)
