"""Correlations between the values of many ciphertexts under one key.

Neighbouring values of natural images, and the colours of a pixel, rise and fall together. A shared
key may complement and permute values, but what belongs together stays correlated, with the sign
that the key gives it.
"""

from collections.abc import Iterator
from itertools import permutations

import torch
from torch import Tensor

ORDERS = tuple(permutations(range(3)))


def standardised(values: Tensor) -> Tensor:
    """Float (N, ...), each with mean 0 and variance 1 over the first axis, constant ones 0."""
    centred = values - values.mean(0)
    return centred / centred.square().mean(0).sqrt().clamp_min(1e-6)


def principal_component(values: Tensor) -> tuple[Tensor, Tensor]:
    """The first principal component of float (N, D): scores (N,) and loadings (D,)."""
    centred = values - values.mean(0)
    if len(centred) < centred.shape[1]:
        scores = torch.linalg.eigh(centred @ centred.T).eigenvectors[:, -1]
        return scores, centred.T @ scores
    loadings = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    return centred @ loadings, loadings


def grid_edges(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pairs of neighbours on a grid, numbered row by row: int64 (E,) twice."""
    place = torch.arange(height * width).view(height, width)
    first = torch.cat((place[:, :-1].flatten(), place[:-1].flatten()))
    second = torch.cat((place[:, 1:].flatten(), place[1:].flatten()))
    return first, second


def strongest_tree(
    first: Tensor, second: Tensor, weight: Tensor, count: int
) -> Iterator[tuple[int, int, int]]:
    """Walk along a spanning forest of largest total weight (Kruskal's algorithm).

    Args:
        first: int64 (E,), one end of every edge.
        second: int64 (E,), the other end.
        weight: float (E,).
        count: of nodes.

    Yields:
        parent, child and edge, so that a parent comes before its children; roots are no children.
    """
    ends, other_ends = first.tolist(), second.tolist()
    group = list(range(count))

    def root(node: int) -> int:
        while group[node] != node:
            group[node] = group[group[node]]
            node = group[node]
        return node

    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for edge in weight.argsort(descending=True, stable=True).tolist():
        a, b = ends[edge], other_ends[edge]
        if root(a) != root(b):
            group[root(a)] = root(b)
            neighbours[a].append((b, edge))
            neighbours[b].append((a, edge))
    seen = [False] * count
    for start in range(count):
        if seen[start]:
            continue
        seen[start], waiting = True, [start]
        while waiting:
            parent = waiting.pop()
            for child, edge in neighbours[parent]:
                if not seen[child]:
                    seen[child] = True
                    waiting.append(child)
                    yield parent, child, edge


def signs(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Which values are complemented, up to all of them at once.

    Args:
        values: float (N, P, C): C values at each of P places.
        first: int64 (E,), one of every pair of neighbouring places.
        second: int64 (E,), the other.

    Returns:
        float 1 or −1, (P, C).
    """
    count, places, channels = values.shape
    scaled = standardised(values)
    across = torch.einsum("nec,ned->ecd", scaled[:, first], scaled[:, second]) / count
    within = torch.einsum("npc,npd->pcd", scaled, scaled) / count
    node = torch.arange(places * channels).view(places, channels)
    upper = torch.triu_indices(channels, channels, 1)
    strength = torch.cat((across.flatten(), within[:, upper[0], upper[1]].flatten()))
    ends = torch.cat(
        (
            node[first][:, :, None].expand(across.shape).flatten(),
            node[:, upper[0]].flatten(),
        )
    )
    other_ends = torch.cat(
        (
            node[second][:, None, :].expand(across.shape).flatten(),
            node[:, upper[1]].flatten(),
        )
    )
    opposite = (strength < 0).tolist()
    sign = [1.0] * (places * channels)
    for parent, child, edge in strongest_tree(ends, other_ends, strength.abs(), len(sign)):
        sign[child] = -sign[parent] if opposite[edge] else sign[parent]
    return torch.tensor(sign).view(places, channels)


def colours(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Which of a place's three values is which colour, by colour differences of neighbours.

    Args:
        values: float (N, P, 3), none of them complemented.
        first: int64 (E,), one of every pair of neighbouring places.
        second: int64 (E,), the other.

    Returns:
        int64 (P, 3): where colour k is at every place. Colours are in one order everywhere, but
        which is red and which is blue is not known from this.
    """
    count, places, _ = values.shape
    scaled = standardised(values - values.mean(2, keepdim=True))
    across = torch.einsum("nec,ned->ecd", scaled[:, first], scaled[:, second]) / count
    fit = torch.stack([across[:, [0, 1, 2], order].sum(1) for order in ORDERS], 1)
    best = fit.topk(2, dim=1)
    order_of = best.indices[:, 0].tolist()
    where: list[tuple[int, ...]] = [(0, 1, 2)] * places
    starts = first.tolist()
    margin = best.values[:, 0] - best.values[:, 1]
    for parent, child, edge in strongest_tree(first, second, margin, places):
        order = ORDERS[order_of[edge]]  # value i of the first goes with value order[i] of the other
        if parent == starts[edge]:
            where[child] = tuple(order[i] for i in where[parent])
        else:
            where[child] = tuple(order.index(i) for i in where[parent])
    return torch.tensor(where)


def negative(values: Tensor) -> bool:
    """Whether photographs seem to be complemented: they have fewer bright values than dark ones,
    but farther from the mean, so that their third central moment is positive. Float (...)."""
    return float((values - values.mean()).pow(3).mean()) < 0


def falling(picture: Tensor) -> float:
    """How much more there is at the top of a picture (rows, columns) than at the bottom: light
    comes from above."""
    half = len(picture) // 2
    return float(picture[:half].mean() - picture[-half:].mean())


def red_green_blue(pictures: Tensor) -> Tensor:
    """Which of three colours is which: green goes with both others, and of those blue is the one
    with less at the bottom, where there is no sky.

    Float (N, 3, H, W) to int64 (3,): the numbers of red, green and blue.
    """
    related = torch.corrcoef(pictures.transpose(0, 1).flatten(1))
    green = int(related.sum(1).argmax())
    ends = [k for k in range(3) if k != green]
    half = pictures.shape[2] // 2
    low = pictures[:, :, half:].mean((0, 2, 3))
    red, blue = sorted(ends, key=lambda k: -float(low[k]))
    return torch.tensor([red, green, blue])
