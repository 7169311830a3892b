"""Shared keys, ciphertexts alone: statistics of many uploads under one key give it away."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedenc.attacks.base import Attack, Findings, Means, Method, Observation
from fedenc.attacks.common import unknown_key, zero_key_pictures
from fedenc.attacks.correlation import (
    colours,
    grid_edges,
    negative,
    principal_component,
    red_green_blue,
    signs,
)
from fedenc.attacks.recovery import COLOR_ORDERS, UNKNOWN, Recovered
from fedenc.attacks.same_key_blocks import etc, etc_gray, scramble
from fedenc.attacks.same_key_ele import ele
from fedenc.attacks.same_key_le import le
from fedenc.ciphers import functional
from fedenc.ciphers.base import KeyParts
from fedenc.ciphers.ele import ELE
from fedenc.ciphers.etc import EtC
from fedenc.ciphers.etc_gray import EtCGray
from fedenc.ciphers.le import BLOCK, LE
from fedenc.ciphers.pixel import Pixel
from fedenc.ciphers.scramble import Scramble
from fedenc.errors import AttackError

Solved = tuple[Tensor, KeyParts]  # pictures uint8 (N, C, H, W), and what is known of the key
ENOUGH = 8  # uploads under one key, for correlations that mean anything


@dataclass(frozen=True)
class PrincipalComponent(Attack):
    """Reads a shared key from correlations between the values of many uploads.

    Negative-positive transformation: the signs of the first principal component are the mask, as
    photographs differ most in brightness. Neighbouring values tell more: along a tree of the
    strongest correlations, twenty CIFAR images give the whole mask. Colour shuffling: differences
    of colours correlate between neighbouring pixels.

    LE: the upper half-bytes are those that go with brightness; correlations with the blocks beside
    and below give their places; a lower half-byte is highest where a pixel is about to become
    brighter by a step of the upper one. Under independent keys each image is attacked by itself,
    for its blocks share a key. ELE: the same for every block, after blocks have been placed by
    likeness; 300 CIFAR images give about two thirds of the bytes.

    Ciphers that move blocks: borders of neighbouring blocks correlate. Of ``etc-gray`` only the
    gray picture is put together.

    All of it holds up to complementing every image, and where blocks are turned or every block has
    its own key, up to turning and mirroring every image. Photographs tell which is right (few
    values are bright, but they are far from the mean; light comes from above), except for the
    mirror.

    Args:
        neighbours: use correlations of neighbours; otherwise the first principal component alone,
            which gives masks but no orders of colours.
    """

    neighbours: bool = True
    name: ClassVar[str] = "principal-component"
    source: ClassVar[str] = "derived"
    quick: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.neighbours, bool):
            raise AttackError(f"neighbours is {self.neighbours!r}, expected true or false")

    def unsuitable(self, method: Method) -> str | None:
        cipher = method.cipher
        if type(cipher) not in _SOLVERS:
            return f"knows no way to read a key of {method.name} from ciphertexts alone"
        if not method.shares_keys and not isinstance(cipher, LE):
            return "needs images that share a key, but keys are independent"
        side = BLOCK if isinstance(cipher, LE | ELE) else getattr(cipher, "block_size", 1)
        if min(method.shape[1:]) < 2 * side:
            return f"needs images of two blocks or more a side, of {side} pixels each"
        if not self.neighbours and not isinstance(cipher, Pixel):
            return "needs neighbours=True for all but pixel-based encryption"
        return None

    def is_quick(self, method: Method) -> bool:
        return not isinstance(method.cipher, ELE) and max(method.shape[1:]) <= 64

    def run(self, observation: Observation, means: Means) -> Findings:
        method, uploads = observation.method, observation.uploads
        if reason := self.unsuitable(method):
            raise AttackError(f"{self.name} {reason}")
        assert method.cipher is not None
        groups = list(observation.groups())
        enough = _FEWEST.get(type(method.cipher), ENOUGH)
        if (largest := max(map(len, groups), default=0)) < enough:
            raise AttackError(
                f"{self.name} needs {enough} or more uploads under one key, found {largest}; "
                "attack more uploads"
            )
        images = zero_key_pictures(method, uploads.images)
        keys, nothing = [], unknown_key(method)
        for number, rows in enumerate(groups, 1):
            known = nothing
            if len(rows) >= enough:
                solve = _SOLVERS[type(method.cipher)]
                images[rows], known = solve(method, uploads.images[rows], self.neighbours)
            keys.append(known)
            means.report(number / len(groups), f"{number} of {len(groups)} keys")
        turned = isinstance(method.cipher, EtC | EtCGray | ELE)
        return Findings(images=images, key=tuple(keys), complement=True, mirror=turned)


def _pixel(method: Method, encrypted: Tensor, neighbours: bool) -> Recovered:
    cipher: Any = method.cipher
    height, width = encrypted.shape[2:]
    edges = grid_edges(height, width)
    values = encrypted.flatten(2).transpose(1, 2) - 127.5  # (N, H·W, C); NP changes their sign
    if neighbours:
        sign = signs(values, *edges)
    else:
        flat = values.flatten(1)
        sign = principal_component(flat)[1].view(values.shape[1:]).sign()
    if negative(values * sign):
        sign = -sign
    places, channels = sign.shape
    source = torch.arange(channels).expand(places, channels)  # of every encrypted channel
    if cipher.color_shuffle and neighbours:
        where = colours(values * sign, *edges)
        ordered = (values * sign).gather(2, where.expand(values.shape)).transpose(1, 2)
        where = where[:, red_green_blue(ordered.reshape(len(ordered), 3, height, width))]
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


def _decrypted(
    solve: Callable[[Method, Tensor, bool], Recovered],
) -> Callable[[Method, Tensor, bool], Solved]:
    """Use the key that was found."""

    def solved(method: Method, encrypted: Tensor, neighbours: bool) -> Solved:
        found = solve(method, encrypted, neighbours)
        assert method.cipher is not None
        return method.cipher.invert(encrypted, found.guess, method.shape), found.known

    return solved


_FEWEST: dict[type, int] = {LE: 1, ELE: 48}  # ELE shows a block's key once in every image
_SOLVERS: dict[type, Callable[[Method, Tensor, bool], Solved]] = {
    Pixel: _decrypted(_pixel),
    LE: _decrypted(lambda method, encrypted, _: le(encrypted)),
    ELE: _decrypted(lambda method, encrypted, _: ele(encrypted)),
    Scramble: _decrypted(lambda method, encrypted, _: scramble(method, encrypted)),
    EtC: _decrypted(lambda method, encrypted, _: etc(method, encrypted)),
    EtCGray: lambda method, encrypted, _: etc_gray(method, encrypted),
}
