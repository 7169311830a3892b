"""Guessable seeds: keys that were made from a small number fall to trying all of them."""

import math
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedenc.attacks.base import Attack, Findings, Means, Method, Observation, Uploads
from fedenc.attacks.colluders import SAMPLE, decrypted, keyless, keystream
from fedenc.attacks.common import natural, roughness, zero_key_pictures
from fedenc.ciphers.base import KeyParts
from fedenc.ciphers.pixel import Pixel
from fedenc.errors import AttackError
from fedenc.keys import MASTER_BITS, KeyRing

SCHEMES = ("simulated", "numpy")
BATCH = 256  # seeds tried at a time
_TRIED = 2  # images on which every seed is tried; the most natural of a batch is tried on more
_YEAR = 365.25 * 24 * 3600  # seconds


@dataclass(frozen=True)
class SeedSearch(Attack):
    """Tries the keys that small seeds give until the decrypted images look natural.

    Args:
        seeds: how many to try: 0 to seeds − 1.
        scheme: how keys are made of a seed. ``simulated``: as fedenc's simulations do from
            ``encryption.seed``. ``numpy``: as scripts published with papers do, a mask of
            ``RandomState(seed)``, and of ``RandomState(seed + number)`` under independent keys; for
            negative-positive transformation alone.
    """

    seeds: int = 1024
    scheme: str = "simulated"
    name: ClassVar[str] = "seed-search"
    source: ClassVar[str] = "derived"

    def __post_init__(self) -> None:
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or self.seeds < 1:
            raise AttackError(f"seeds is {self.seeds!r}, expected how many to try, 1 or more")
        if self.scheme not in SCHEMES:
            raise AttackError(f"scheme is {self.scheme!r}, expected one of {', '.join(SCHEMES)}")

    def unsuitable(self, method: Method) -> str | None:
        cipher = method.cipher
        if self.scheme == "numpy" and not (isinstance(cipher, Pixel) and not cipher.color_shuffle):
            return "needs negative-positive transformation alone (scheme is 'numpy')"
        return keyless(method)

    def run(self, observation: Observation, means: Means) -> Findings:
        method, uploads = observation.method, observation.uploads
        if not len(uploads):
            raise AttackError("there are no uploads; expected one or more")
        first = uploads.rows((uploads.owners == uploads.owners[0]).nonzero().squeeze(1)[:SAMPLE])
        started, tried, found = time.perf_counter(), 0, -1
        while tried < self.seeds and found < 0:
            batch = range(tried, min(tried + BATCH, self.seeds))
            best = self._most_natural(method, first.rows(torch.arange(len(first))[:_TRIED]), batch)
            if natural(method, first.images, self._decrypted(method, first, best)):
                found = best
            tried += len(batch)
            means.report(tried / self.seeds, f"{tried:,} seeds tried")
        rate = tried / max(time.perf_counter() - started, 1e-9)
        images = zero_key_pictures(method, uploads.images)
        if found >= 0:
            for owner in sorted(set(uploads.owners.tolist())):
                rows = (uploads.owners == owner).nonzero().squeeze(1)
                images[rows] = self._decrypted(method, uploads.rows(rows), found)
        years = MASTER_BITS * math.log10(2) - math.log10(rate * _YEAR)
        facts = {"seed": found, "tried": tried, "seeds_per_second": rate, "log10_years": years}
        return Findings(images=images, facts=facts)

    def _most_natural(self, method: Method, some: Uploads, seeds: range) -> int:
        """The seed under which a few uploads of one owner become smoothest."""
        assert method.cipher is not None
        total = torch.zeros(len(seeds))
        for row in range(len(some)):
            one = some.rows(torch.tensor([row]))
            drawn = [self._key(method, one, seed) for seed in seeds]
            key = tuple(torch.cat(parts) for parts in zip(*drawn, strict=True))
            images = one.images.expand(len(seeds), *one.images.shape[1:])
            total += roughness(method, method.cipher.invert(images, key, method.shape))
        return seeds[int(total.argmin())]

    def _key(self, method: Method, one: Uploads, seed: int) -> KeyParts:
        """The key of one upload."""
        assert method.cipher is not None
        if self.scheme == "numpy":
            return (_masks(method, one, seed),)
        return method.cipher.draw(keystream(method, one, _ring(method, one, seed)), *method.shape)

    def _decrypted(self, method: Method, uploads: Uploads, seed: int) -> Tensor:
        """Uploads of one owner under the keys of a seed: uint8 (N, *method.shape)."""
        if self.scheme == "numpy":
            return uploads.images ^ _masks(method, uploads, seed)
        return decrypted(method, uploads, _ring(method, uploads, seed))


def _ring(method: Method, uploads: Uploads, seed: int) -> KeyRing:
    return KeyRing.simulated(seed, int(uploads.owners[0]), shared=method.policy == "same")


def _masks(method: Method, uploads: Uploads, seed: int) -> Tensor:
    """uint8 0 or 255, (N, *method.shape), or (1, *method.shape) where images share a key."""
    numbers = [0] if method.shares_keys else uploads.ids.tolist()
    masks = [np.random.RandomState(seed + i).randint(0, 2, method.shape) for i in numbers]
    return torch.from_numpy(np.stack(masks) * 255).to(torch.uint8)
