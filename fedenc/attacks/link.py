"""Linking: which upload, if any, shows a candidate image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedenc import seeding
from fedenc.attacks.base import Attack, Findings, Knowledge, Means, Method, Observation
from fedenc.data.augment import shift_and_flip
from fedenc.errors import AttackError

NOWHERE = -1
ROUNDING = 1  # by how much a network's outputs may differ on another machine, in gray levels
_SKETCH = 64  # random projections by which near outputs are found
_CHUNK = 2048


@dataclass(frozen=True)
class Link(Attack):
    """Compares candidates with uploads by the canonical form, which no key changes.

    Args:
        crops: largest shift, in pixels on each axis, that owners may have made before they
            encrypted; every one is tried, with black where an image was moved away.
        flips: also try mirrored candidates.
    """

    crops: int = 0
    flips: bool = False
    name: ClassVar[str] = "link"
    source: ClassVar[str] = "derived: the canonical form is a complete invariant of the keys' group"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.CANDIDATES})
    quick: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.crops, self.flips)

    def unsuitable(self, method: Method) -> str | None:
        if method.cipher is None:
            return "needs a cipher; link-network is for the shared network"
        probe = torch.zeros(1, *method.cipher.output_shape(*method.shape), dtype=torch.uint8)
        if method.cipher.canonical(probe) is None and method.cipher.key_space_log2(*method.shape):
            return f"needs a canonical form, which {method.name} does not have"
        return None

    def run(self, observation: Observation, means: Means) -> Findings:
        method, candidates = observation.method, observation.candidates
        assert method.cipher is not None
        rows: dict[bytes, int] = {}
        for row, form in enumerate(_forms(method, observation.uploads.images)):
            rows.setdefault(form, row)
        links = torch.full((len(candidates),), NOWHERE)
        for changed in versions(candidates, self.crops, self.flips):
            forms = _forms(method, method.cipher.layout(changed))
            found = torch.tensor([rows.get(form, NOWHERE) for form in forms], dtype=torch.int64)
            links = torch.where(links == NOWHERE, found, links)
        return Findings(
            links=links, facts={"versions": (2 * self.crops + 1) ** 2 * (1 + self.flips)}
        )


@dataclass(frozen=True)
class LinkNetwork(Attack):
    """Passes candidates through the shared network and compares them with uploads.

    The network has no key: whoever holds it can protect any image exactly as an owner does. The
    nearest upload (L2) is a candidate's if no value differs by more than rounding.

    Args:
        crops: as for ``link``.
        flips: as for ``link``.
    """

    crops: int = 0
    flips: bool = False
    name: ClassVar[str] = "link-network"
    source: ClassVar[str] = "derived"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.CANDIDATES, Knowledge.NETWORK})
    quick: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.crops, self.flips)

    def unsuitable(self, method: Method) -> str | None:
        return None if method.cipher is None else "needs images protected by a shared network"

    def run(self, observation: Observation, means: Means) -> Findings:
        candidates, uploads = observation.candidates, observation.uploads.images
        width = uploads[0].numel()
        projection = torch.randn(
            width, _SKETCH, generator=seeding.generator(means.seed, "projection")
        )
        known = uploads.flatten(1).float() @ projection
        links = torch.full((len(candidates),), NOWHERE)
        for changed in versions(candidates, self.crops, self.flips):
            protected = observation.network.protect(changed).flatten(1)
            nearest = torch.cat(
                [
                    torch.cdist(part.float() @ projection, known).argmin(1)
                    for part in torch.split(protected, _CHUNK)
                ]
            )
            apart = (protected.short() - uploads[nearest].flatten(1).short()).abs().amax(1)
            found = torch.where(apart <= ROUNDING, nearest, NOWHERE)
            links = torch.where(links == NOWHERE, found, links)
        return Findings(links=links)


def versions(images: Tensor, crops: int, flips: bool) -> Iterator[Tensor]:
    """Images uint8 (N, C, H, W), as they are first, then mirrored and shifted in every way."""
    count, steps = len(images), sorted(range(-crops, crops + 1), key=abs)
    for mirrored in (False, True)[: 1 + flips]:
        flip = torch.full((count,), mirrored)
        for down in steps:
            for right in steps:
                shift = (torch.full((count,), down), torch.full((count,), right))
                yield shift_and_flip(images, *shift, flip)


def _forms(method: Method, images: Tensor) -> Iterator[bytes]:
    """The canonical form of every image, in its layout, as bytes."""
    assert method.cipher is not None
    for part in torch.split(images, _CHUNK):
        found = method.cipher.canonical(part)
        rows = np.ascontiguousarray((part if found is None else found).flatten(1).numpy())
        yield from (row.tobytes() for row in rows)


def _check(crops: int, flips: bool) -> None:
    if isinstance(crops, bool) or not isinstance(crops, int) or crops < 0:
        raise AttackError(f"crops is {crops!r}, expected pixels, 0 or more")
    if not isinstance(flips, bool):
        raise AttackError(f"flips is {flips!r}, expected true or false")
