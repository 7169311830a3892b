"""A canonical order of the rows of a matrix of bytes, many matrices at a time."""

import torch
from torch import Tensor

WORD = 8  # bytes
_HASH_BITS = 40
_MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, odd, as a signed integer


def sort_rows(rows: Tensor, figure: Tensor | None = None) -> Tensor:
    """Sort the rows of every matrix by a figure; rows of one figure by a hash, and rows of one hash
    by their words, so that the order is a function of the content alone.

    Args:
        rows: uint8 (N, M, B).
        figure: int64 (N, M), a function of the row, below 2^23 in size. None: the sum of its bytes,
            so that rows go from dark to bright.

    Returns:
        uint8 (N, M, B), equal for matrices that differ in the order of their rows only.
    """
    words = as_words(rows)
    if figure is None:
        figure = rows.sum(-1, dtype=torch.int64)
    keys = (figure << _HASH_BITS) + (_hash(words) & (1 << _HASH_BITS) - 1)
    ordered, order = keys.sort(1)
    doubtful = _unequal_ties(ordered, words, order)
    if len(doubtful):
        order[doubtful] = lexicographic(keys[doubtful], words[doubtful])
    return gather_rows(rows, order)


def gather_rows(rows: Tensor, order: Tensor) -> Tensor:
    """``out[n, j] = rows[n, order[n, j]]`` for uint8 (N, M, B) and int64 (N, M)."""
    count, each, _ = rows.shape
    first = torch.arange(0, count * each, each, device=rows.device)
    return rows.flatten(0, 1).index_select(0, (order + first[:, None]).flatten()).view_as(rows)


def as_words(rows: Tensor) -> Tensor:
    """Rows of bytes as int64 (..., ⌈B / 8⌉), zeros appended: a comparison of few numbers is one of
    many bytes. Any fixed order of rows will do, so the sign and the order of bytes do not matter.

    Args:
        rows: uint8 (..., B).
    """
    missing = -rows.shape[-1] % WORD
    if missing:
        rows = torch.nn.functional.pad(rows, (0, missing))
    return rows.contiguous().view(torch.int64)


def lexicographic(keys: Tensor, words: Tensor) -> Tensor:
    """The order by key, then by words from the first to the last.

    Args:
        keys: int64 (K, M).
        words: int64 (K, M, W).

    Returns:
        int64 (K, M).
    """
    order = torch.arange(keys.shape[1], device=keys.device).expand_as(keys)
    for column in (*reversed(words.unbind(-1)), keys):
        placed = column.gather(1, order)
        order = order.gather(1, placed.argsort(dim=1, stable=True))
    return order


def _hash(words: Tensor) -> Tensor:
    """Well-mixed lower bits: products wrap around, shifted-in bits are masked off by the caller."""
    powers = torch.empty(words.shape[-1], dtype=torch.int64)
    power = 1
    for place in range(len(powers)):
        power = _signed(power * _MULTIPLIER)
        powers[place] = power
    mixed = (words * powers.to(words.device)).sum(-1)
    mixed = (mixed ^ (mixed >> 32)) * _MULTIPLIER
    return mixed ^ (mixed >> 32)


def _signed(value: int) -> int:
    """An integer modulo 2^64, in −2^63..2^63 − 1."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _unequal_ties(keys: Tensor, words: Tensor, order: Tensor) -> Tensor:
    """The matrices in which different rows have the same key: int64 (K,)."""
    tied = (keys[:, 1:] == keys[:, :-1]).any(1).nonzero().squeeze(1)
    if not len(tied):
        return tied
    placed = words[tied].gather(1, order[tied][..., None].expand(-1, -1, words.shape[-1]))
    differ = (placed[:, 1:] != placed[:, :-1]).any(-1)
    return tied[((keys[tied, 1:] == keys[tied, :-1]) & differ).any(1)]
