"""Shared keys of ciphers that move blocks, from ciphertexts alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedenc.attacks.assembly import Arrangement, assemble, composed, rearranged, turn_cells
from fedenc.attacks.base import Method
from fedenc.attacks.correlation import colours, falling, grid_edges, negative, red_green_blue
from fedenc.attacks.recovery import COLOR_ORDERS, UNKNOWN, Recovered
from fedenc.ciphers import functional
from fedenc.ciphers.base import KeyParts
from fedenc.ciphers.blocks import TURNS


def scramble(method: Method, encrypted: Tensor) -> Recovered:
    """Blocks by the correlations of their borders, pixel by pixel and colour by colour."""
    cipher: Any = method.cipher
    size, (height, width) = cipher.block_size, encrypted.shape[2:]
    blocks = functional.split_blocks(encrypted, size).float().transpose(1, 2).flatten(0, 1)
    found = assemble(blocks, height // size, width // size, turned=False)
    order = functional.invert_permutation(found.block)[None]
    return Recovered((order,), (order,))


def etc(method: Method, encrypted: Tensor) -> Recovered:
    """Places, turns and complements by borders, in gray; then colours by those of neighbours.

    The whole picture is set upright: light comes from above. Whether it is mirrored is not known.
    """
    cipher: Any = method.cipher
    size, (height, width) = cipher.block_size, encrypted.shape[2:]
    grid = height // size, width // size
    values = functional.split_blocks(encrypted, size).float()  # (N, M, C, size, size)
    found = upright(assemble(values.mean(2), *grid, turned=True), values.mean(2), grid)
    order = functional.invert_permutation(found.block)
    turns = _inverse(found.turn)[order]
    flips = (found.sign[order] < 0) * torch.tensor(255, dtype=torch.uint8)
    parts = order[None], turns[None].to(torch.uint8), flips[None]
    if not cipher.color_shuffle:
        return _certain(parts)
    means = values.mean((3, 4))[:, found.block]  # (N, M, 3), by place
    natural = torch.where(found.sign[:, None] < 0, 255 - means, means)
    where = colours(natural, *grid_edges(*grid))
    ordered = natural.gather(2, where.expand(natural.shape)).transpose(1, 2)
    where = where[:, red_green_blue(ordered.reshape(len(ordered), 3, *grid))]
    source = functional.invert_permutation(where)
    codes = (source[:, None] == COLOR_ORDERS).all(2).byte().argmax(1)[order]
    return _certain((*parts, codes[None].to(torch.uint8)))


def etc_gray(method: Method, encrypted: Tensor) -> tuple[Tensor, KeyParts]:
    """The blocks that vary most are those of Y; they are put together as for ``etc``.

    Returns:
        uint8 (N, *method.shape): gray pictures.
        Key parts, −1 for the blocks of colour planes.
    """
    cipher: Any = method.cipher
    size, shape = cipher.block_size, method.shape
    height, width = cipher.plain_shape(*encrypted.shape[1:])[1:]
    grid = height // size, width // size
    values = functional.split_blocks(encrypted, size)[:, :, 0].float()  # (N, M, size, size)
    vary = values.var((0, 2, 3)).argsort(descending=True)[: grid[0] * grid[1]]
    gray = values[:, vary]
    found = upright(assemble(gray, *grid, turned=True), gray, grid)
    picture = _picture(gray, found, grid)[:, None, : shape[1], : shape[2]]
    places = vary[found.block]  # of Y's blocks, row by row
    order, turns, flips = (torch.full((1, values.shape[1]), UNKNOWN) for _ in range(3))
    order[0, places] = torch.arange(len(places))
    turns[0, places] = _inverse(found.turn)
    flips[0, places] = (found.sign < 0) * 255
    return picture.to(torch.uint8).expand(-1, shape[0], -1, -1), (order, turns, flips)


def _inverse(turns: Tensor) -> Tensor:
    """Codes that undo turns."""
    return (composed() == 0).byte().argmax(1)[turns]


def _picture(gray: Tensor, found: Arrangement, grid: tuple[int, int]) -> Tensor:
    """Blocks (N, M, size, size) as arranged: (N, rows·size, columns·size)."""
    placed = gray[:, found.block]
    natural = torch.where(found.sign[:, None, None] < 0, 255 - placed, placed)
    blocks = natural.permute(1, 2, 3, 0)
    turned = [turn_cells(one, int(code)) for one, code in zip(blocks, found.turn, strict=True)]
    joined = torch.stack(turned).view(*grid, *blocks.shape[1:])  # (rows, columns, size, size, N)
    return joined.transpose(1, 2).flatten(2, 3).flatten(0, 1).permute(2, 0, 1)


def upright(found: Arrangement, gray: Tensor, grid: tuple[int, int]) -> Arrangement:
    """Turn and complement an arrangement of blocks (N, M, size, size) so that it looks natural."""
    pictures = _picture(gray, found, grid)
    if negative(pictures):
        found, pictures = Arrangement(found.block, found.turn, -found.sign), 255 - pictures
    codes = range(TURNS if grid[0] == grid[1] else TURNS // 2)
    mean = pictures.mean(0)
    best = max(codes, key=lambda code: falling(turn_cells(mean, code)))
    return rearranged(found, best, grid)


def _certain(parts: KeyParts) -> Recovered:
    return Recovered(parts, tuple(part.long() for part in parts))
