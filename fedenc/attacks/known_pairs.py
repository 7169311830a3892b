"""Known plaintexts: some plain images beside their ciphertexts give the key they share."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedenc.attacks.base import Attack, Findings, Knowledge, Means, Method, Observation
from fedenc.attacks.common import unknown_key, zero_key_pictures
from fedenc.attacks.recovery import recover, solvable
from fedenc.errors import AttackError


@dataclass(frozen=True)
class KnownPairs(Attack):
    """Matches known images with their ciphertexts and decrypts all others under the same key.

    A pair gives the key of the images that share it. Under independent keys that is this image
    alone; of the others the attack returns what is seen without a key.

    Args:
        pairs: how many known pairs to use of every group of images that share a key; 0: all.
    """

    pairs: int = 2
    name: ClassVar[str] = "known-pairs"
    source: ClassVar[str] = "derived; for pixel-based encryption as Chang & Case, arXiv 2004.13263"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.PAIRS})

    def __post_init__(self) -> None:
        check_pairs(self.pairs)

    def unsuitable(self, method: Method) -> str | None:
        if method.cipher is None:
            return "needs a cipher with keys"
        return None if solvable(method.cipher) else f"knows no way to solve {method.name}"

    def run(self, observation: Observation, means: Means) -> Findings:
        method, uploads, known = observation.method, observation.uploads, observation.pairs
        assert method.cipher is not None
        images = zero_key_pictures(method, uploads.images)
        used, key, nothing = 0, [], unknown_key(method)
        for rows in observation.groups():
            chosen = torch.isin(known.rows, rows).nonzero().squeeze(1)
            chosen = chosen[: self.pairs or None] if method.shares_keys else chosen[:0]
            used += len(chosen)
            if not len(chosen):
                key.append(nothing)
                continue
            encrypted = uploads.images[known.rows[chosen]]
            found = recover(method.cipher, known.plain[chosen], encrypted)
            images[rows] = method.cipher.invert(uploads.images[rows], found.guess, method.shape)
            key.append(found.known)
        images[known.rows] = known.plain
        return Findings(images=images, key=tuple(key), facts={"pairs": used})


def check_pairs(pairs: int) -> None:
    """Raises AttackError unless it is a number of pairs."""
    if isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 0:
        raise AttackError(f"pairs is {pairs!r}, expected 1 or more, or 0 for all")
