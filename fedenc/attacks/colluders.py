"""Colluding owners: what some owners' keys open of what the others uploaded."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.attacks.base import Attack, Findings, Knowledge, Means, Method, Observation, Uploads
from fedenc.attacks.common import natural, zero_key_pictures
from fedenc.errors import AttackError
from fedenc.keys import KeyRing, Keystream
from fedenc.shard import TRAIN

SAMPLE = 16  # images of an owner on which a key is tried


@dataclass(frozen=True)
class Colluders(Attack):
    """Tries the keys that colluding owners hand over on everybody's images.

    Everything but the master key is public. A key is right where it makes smoother images than
    wrong keys make. What no key opens is shown as it is seen without a key.
    """

    name: ClassVar[str] = "colluders"
    source: ClassVar[str] = "derived"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.COLLUDERS})

    def unsuitable(self, method: Method) -> str | None:
        return keyless(method)

    def run(self, observation: Observation, means: Means) -> Findings:
        method, uploads, rings = observation.method, observation.uploads, observation.rings
        if not rings:
            raise AttackError("no owner colludes; expected the key ring of one or more")
        images = zero_key_pictures(method, uploads.images)
        opened = torch.zeros(len(uploads), dtype=torch.bool)
        others = 0
        for owner in sorted(set(uploads.owners.tolist())):
            rows = (uploads.owners == owner).nonzero().squeeze(1)
            own = [rings[owner]] if owner in rings else []
            others += 0 if own else len(rows)
            for ring in own or [one.for_participant(owner) for one in rings.values()]:
                if own or _opens(method, uploads.rows(rows[:SAMPLE]), ring):
                    images[rows] = decrypted(method, uploads.rows(rows), ring)
                    opened[rows] = not own
                    break
        share = float(opened.sum()) / others if others else 0.0
        return Findings(images=images, facts={"colluders": len(rings), "opened": share})


def keyless(method: Method) -> str | None:
    """Why there is no key to look for, as the end of a sentence."""
    if method.cipher is None or not method.cipher.key_space_log2(*method.shape):
        return "needs a cipher with keys"
    return None


def keystream(method: Method, uploads: Uploads, ring: KeyRing) -> Keystream:
    """What a key ring gives for uploads of one owner; all but the ring is public."""
    assert method.policy is not None
    return ring.keystream(
        method=method.name,
        policy=method.policy,
        purpose=TRAIN,
        nonce=uploads.nonces[int(uploads.owners[0])],
        ids=uploads.ids.numpy(),
        views=uploads.views.numpy(),
    )


def decrypted(method: Method, uploads: Uploads, ring: KeyRing) -> Tensor:
    """Uploads of one owner under a key ring: uint8 (N, *method.shape)."""
    assert method.cipher is not None
    stream = keystream(method, uploads, ring)
    return method.cipher.decrypt(uploads.images, stream, shape=method.shape)


def _opens(method: Method, uploads: Uploads, ring: KeyRing) -> bool:
    return natural(method, uploads.images, decrypted(method, uploads, ring))
