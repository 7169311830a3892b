"""Shared keys, ciphertexts alone: statistics of many uploads under one key give it away."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fedenc.attacks.base import Attack, Findings, Means, Method, Observation
from fedenc.attacks.common import unknown_key, zero_key_pictures
from fedenc.attacks.correlation import (
    colours,
    grid_edges,
    principal_component,
    red_green_blue,
    signs,
    standardised,
)
from fedenc.attacks.recovery import COLOR_ORDERS, UNKNOWN, Recovered
from fedenc.ciphers import functional
from fedenc.ciphers.le import BLOCK, LE
from fedenc.ciphers.pixel import Pixel
from fedenc.errors import AttackError

ENOUGH = 8  # uploads under one key, for correlations that mean anything
_NEAR = ((0.5, 1.0, 0.5), (1.0, 0.0, 1.0), (0.5, 1.0, 0.5))  # weights of a pixel's neighbours
_OTHERS = 0.6  # how far a colour's deviation from its neighbours follows that of the other colours


@dataclass(frozen=True)
class PrincipalComponent(Attack):
    """Reads a shared key from correlations between the values of many uploads.

    Negative-positive transformation: the signs of the first principal component are the mask, as
    photographs differ most in brightness. Neighbouring values tell more: along a tree of the
    strongest correlations, ten CIFAR images give the whole mask. Colour shuffling: differences of
    colours correlate between neighbouring pixels. LE: the upper half-bytes are those that correlate
    with brightness; correlations with the blocks beside and below give their places; a lower
    half-byte is highest where a pixel is about to become brighter by a step of the upper one.

    All of it holds up to complementing every image, which is settled by light coming from above.

    Args:
        neighbours: use correlations of neighbours; otherwise the first principal component alone,
            which gives masks but no orders of colours.
    """

    neighbours: bool = True
    name: ClassVar[str] = "principal-component"
    source: ClassVar[str] = "derived"

    def __post_init__(self) -> None:
        if not isinstance(self.neighbours, bool):
            raise AttackError(f"neighbours is {self.neighbours!r}, expected true or false")

    def unsuitable(self, method: Method) -> str | None:
        if type(method.cipher) not in _SOLVERS:
            return f"knows no way to read a key of {method.name} from ciphertexts alone"
        if not method.shares_keys:
            return "needs images that share a key, but keys are independent"
        return None

    def run(self, observation: Observation, means: Means) -> Findings:
        method, uploads = observation.method, observation.uploads
        if reason := self.unsuitable(method):
            raise AttackError(f"{self.name} {reason}")
        assert method.cipher is not None
        images = zero_key_pictures(method, uploads.images)
        groups = list(observation.groups())
        largest = max(map(len, groups), default=0)
        if largest < ENOUGH:
            raise AttackError(
                f"{self.name} needs {ENOUGH} uploads under one key, found {largest}; attack more "
                "uploads"
            )
        keys, nothing = [], unknown_key(method)
        for number, rows in enumerate(groups):
            if len(rows) < ENOUGH:
                keys.append(nothing)
                continue
            encrypted = uploads.images[rows]
            found = _SOLVERS[type(method.cipher)](method, encrypted, self.neighbours)
            images[rows] = method.cipher.invert(encrypted, found.guess, method.shape)
            keys.append(found.known)
            means.report((number + 1) / len(groups), f"{number + 1} of {len(groups)} keys")
        return Findings(images=images, key=tuple(keys), complement=True)


def _pixel(method: Method, encrypted: Tensor, neighbours: bool) -> Recovered:
    cipher: Any = method.cipher
    height, width = encrypted.shape[2:]
    edges = grid_edges(height, width)
    values = encrypted.flatten(2).transpose(1, 2).float()  # (N, H·W, C)
    if neighbours:
        sign = signs(values, *edges)
    else:
        flat = values.flatten(1)
        sign = principal_component(flat)[1].view(values.shape[1:]).sign()
    sign = _light_from_above(values * sign, sign, height, width)
    places, channels = sign.shape
    source = torch.arange(channels).expand(places, channels)  # of every encrypted channel
    if cipher.color_shuffle and neighbours:
        where = colours(values * sign, *edges)
        natural = torch.where(sign < 0, 255 - values, values)
        ordered = natural.gather(2, where.expand(values.shape)).transpose(1, 2)
        where = where[:, red_green_blue(ordered.unflatten(2, (height, width)))]
        source = functional.invert_permutation(where)
    flips = torch.zeros_like(sign).scatter_(1, source, (sign < 0) * 255.0)
    mask = flips.T.reshape(1, channels, height, width).to(torch.uint8)
    if not cipher.color_shuffle:
        return Recovered((mask,), (mask.long(),))
    codes = (source[:, None] == COLOR_ORDERS).all(2).byte().argmax(1)
    parts = mask, codes.view(1, height, width).to(torch.uint8)
    if neighbours:
        return Recovered(parts, tuple(part.long() for part in parts))
    # masks are those of encrypted channels: without the order of colours they are of no plain one
    return Recovered(parts, tuple(torch.full(part.shape, UNKNOWN) for part in parts))


def _light_from_above(signed: Tensor, sign: Tensor, height: int, width: int) -> Tensor:
    """Complement all signs (P, C) if images (N, P, C) under them are darker at the top."""
    picture = signed.mean((0, 2)).view(height, width)
    half = height // 2
    return -sign if half and picture[:half].mean() < picture[-half:].mean() else sign


def _le(method: Method, encrypted: Tensor, neighbours: bool) -> Recovered:
    """All blocks of all images are observations of one permutation of half-bytes."""
    channels, height, width = encrypted.shape[1:]
    grid = height // BLOCK, width // BLOCK
    blocks = functional.split_nibbles(functional.split_blocks(encrypted, BLOCK)).float()
    blocks = blocks.unflatten(1, grid)  # (N, rows, columns, positions)
    positions = blocks.shape[3]
    brightness, loadings = principal_component(blocks.flatten(0, 2))
    upper, lower = loadings.abs().argsort(descending=True).split(positions // 2)
    sign = loadings.sign()
    sign *= _falling(brightness.view(-1, *grid))
    values = torch.where(sign < 0, 15 - blocks, blocks)
    cell = _cells(values[..., upper], channels)
    order = torch.empty(positions, dtype=torch.int64)
    upper = upper[cell.argsort(stable=True)]  # in plain order, but for the order of colours
    upper = _in_colour(values, upper, channels)
    order[upper] = torch.arange(positions // 2, positions)
    steps = _steps(_joined(values[..., upper], channels))
    match = standardised(_cut(steps)).T @ standardised(blocks[..., lower].flatten(0, 2))
    for _ in range(len(lower)):  # the surest first
        place, one = divmod(int(match.abs().argmax()), len(lower))
        order[lower[one]] = place
        sign[lower[one]] = match[place, one].sign()
        match[place], match[:, one] = 0, 0
    flips = torch.zeros(positions).scatter_(0, order, (sign < 0).float()).to(torch.uint8)
    parts = order[None, None], flips[None, None]
    return Recovered(parts, tuple(part.long() for part in parts))


def _falling(brightness: Tensor) -> float:
    """1, or −1 if brightness (N, rows, columns) is on average less at the top."""
    picture = brightness.mean(0)
    half = len(picture) // 2
    return -1.0 if half and picture[:half].mean() < picture[-half:].mean() else 1.0


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
    pixels = values[..., upper].flatten(0, 2).unflatten(1, (-1, channels))  # (N·M, 16, 3)
    upper = upper.view(-1, channels).gather(1, colours(pixels, *grid_edges(BLOCK, BLOCK)))
    pictures = _joined(values[..., upper.flatten()], channels)
    return upper[:, red_green_blue(pictures)].flatten()


def _joined(blocks: Tensor, channels: int) -> Tensor:
    """Pictures of half-bytes: (N, rows, columns, 16·C) to (N, C, 4·rows, 4·columns)."""
    cut = blocks.unflatten(3, (BLOCK, BLOCK, channels)).permute(0, 5, 1, 3, 2, 4)
    return cut.flatten(4, 5).flatten(2, 3)


def _cut(pictures: Tensor) -> Tensor:
    """Undo ``_joined``, with all blocks below each other: (N·rows·columns, 16·C)."""
    blocks = pictures.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
    return blocks.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(0, 2)


def _steps(upper: Tensor) -> Tensor:
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


_SOLVERS: dict[type, Callable[[Method, Tensor, bool], Recovered]] = {Pixel: _pixel, LE: _le}
