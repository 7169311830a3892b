"""The other side of an attack: protected images together with the truth about them.

A target grants an attack what it declares, and nothing else. Only who scores an attack holds one.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedenc import seeding
from fedenc.attacks.base import (
    Knowledge,
    Labelled,
    Method,
    Model,
    Observation,
    Oracle,
    Pairs,
    Uploads,
)
from fedenc.ciphers.base import Cipher, KeyParts
from fedenc.errors import AttackError
from fedenc.keys import KeyRing, Policy, new_nonce
from fedenc.protection import Context, Keyed, Network, Protection
from fedenc.shard import TRAIN
from fedenc.transformation.bundle import Transformation

KNOWN_PAIRS = 32  # at most, of every group of images that share a key
COLLUDING = 0.2  # of all owners, at least one
ABSENT, ELSEWHERE = -1, -2  # of candidates: not uploaded, and uploaded but not observed here


@dataclass(frozen=True)
class Target:
    """Uploads, and what is true of them.

    Attributes:
        method: what is public about the protection.
        uploads: what a provider holds.
        plain: uint8 (N, C, H, W), what was protected.
        labels: int64 (N,) of the uploads.
        protections: of every owner, with its keys.
        public: images of the same kind, none of them uploaded; None: the attacker has none.
        candidates: uint8 (K, C, H, W), plain images of which some were uploaded.
        candidate_labels: int64 (K,), of the candidates.
        shown: int64 (K,), the row of an upload that shows the candidate, ABSENT or ELSEWHERE.
        trained_on: bool (K,): the model was trained on the candidate; None: there is no model.
        originals: uint8 (N, C, H, W), the owners' images before they augmented them; None: they
            did not.
        model: what was trained on the uploads.
        seed: of which pairs are known and who colludes.
    """

    method: Method
    uploads: Uploads
    plain: Tensor
    labels: Tensor
    protections: Mapping[int, Protection] = field(repr=False)
    public: Labelled | None = None
    candidates: Tensor | None = None
    candidate_labels: Tensor | None = None
    shown: Tensor | None = None
    trained_on: Tensor | None = None
    originals: Tensor | None = None
    model: Model | None = None
    seed: int = 0

    def lacking(self, knowledge: Iterable[Knowledge]) -> list[Knowledge]:
        """What of this knowledge nobody could have of this target."""
        absent = {
            Knowledge.PUBLIC: self.public is None,
            Knowledge.CANDIDATES: self.candidates is None,
            Knowledge.CANDIDATE_LABELS: self.candidate_labels is None,
            Knowledge.MODEL: self.model is None,
            Knowledge.CHOSEN: self.method.cipher is None,
            Knowledge.COLLUDERS: self.method.cipher is None,
            Knowledge.NETWORK: self.network is None,
        }
        return [one for one in knowledge if absent.get(one, False)]

    def observe(self, knowledge: Iterable[Knowledge] = ()) -> Observation:
        """What an attacker with this knowledge gets to see.

        Raises:
            AttackError: nobody could have it of this target.
        """
        wanted = frozenset(knowledge)
        if lacking := self.lacking(wanted):
            names = ", ".join(one.value for one in lacking)
            raise AttackError(f"there is no such knowledge of {self.method.name} here: {names}")
        grants: dict[Knowledge, Callable[[], Any]] = {
            Knowledge.LABELS: lambda: self.labels,
            Knowledge.PUBLIC: lambda: self.public,
            Knowledge.PAIRS: lambda: Pairs(self.known, self.plain[self.known]),
            Knowledge.CHOSEN: lambda: _oracle(self.protections),
            Knowledge.COLOURS: lambda: self.plain[:, :, 0, 0].clone(),
            Knowledge.CANDIDATES: lambda: (
                None if self.candidates is None else self.candidates.clone()
            ),
            Knowledge.CANDIDATE_LABELS: lambda: self.candidate_labels,
            Knowledge.COLLUDERS: lambda: {i: _ring(self.protections[i]) for i in self.colluding},
            Knowledge.NETWORK: lambda: self.network,
            Knowledge.MODEL: lambda: self.model,
        }
        granted = {one: grants[one]() for one in wanted}
        everything = self.uploads.rows(torch.arange(len(self.uploads)))  # a copy, to be written to
        return Observation(self.method, everything, granted)

    def hidden(self, knowledge: Iterable[Knowledge]) -> Tensor:
        """Rows that an attacker with this knowledge does not know from the start: int64 (M,)."""
        hidden = torch.ones(len(self.uploads), dtype=torch.bool)
        if Knowledge.PAIRS in knowledge:
            hidden[self.known] = False
        if Knowledge.COLLUDERS in knowledge:
            hidden &= ~torch.isin(self.uploads.owners, torch.tensor(self.colluding))
        return hidden.nonzero().squeeze(1)

    @cached_property
    def known(self) -> Tensor:
        """Rows whose plain images are known to an attacker with pairs, in random order. Under
        independent keys they are spread over all images."""
        generator = seeding.generator(self.seed, "known pairs")
        groups = list(Observation(self.method, self.uploads).groups())
        if not self.method.shares_keys:
            groups = [torch.cat(groups)]
        rows = []
        for group in groups:
            count = min(KNOWN_PAIRS, len(group) // 2)
            rows.append(group[torch.randperm(len(group), generator=generator)[:count]])
        return torch.cat(rows)

    @cached_property
    def colluding(self) -> list[int]:
        """Owners who hand their keys to the attacker."""
        owners = sorted(self.protections)
        count = max(1, math.floor(COLLUDING * len(owners)))
        generator = seeding.generator(self.seed, "colluders")
        chosen = torch.randperm(len(owners), generator=generator)[:count]
        return sorted(owners[i] for i in chosen.tolist())

    @property
    def network(self) -> Transformation | None:
        """The shared network, if images are protected by one."""
        protection = next(iter(self.protections.values()))
        return protection.bundle if isinstance(protection, Network) else None

    @cached_property
    def key(self) -> tuple[KeyParts, ...]:
        """The true key parts of every group of ``Observation.groups``, one key each."""
        cipher = self.method.cipher
        if cipher is None:
            raise AttackError(f"{self.method.name} has no keys")
        observation = Observation(self.method, self.uploads)
        return tuple(self._drawn(cipher, rows) for rows in observation.groups())

    @cached_property
    def other_key(self) -> KeyParts:
        """The key parts of a key that nobody here has, always the same."""
        cipher = self.method.cipher
        if cipher is None:
            raise AttackError(f"{self.method.name} has no keys")
        keystream = KeyRing.simulated("another key", 0).keystream(
            method=cipher.name,
            policy="same",
            purpose=TRAIN,
            nonce=b"",
            ids=np.zeros(1, np.int64),
        )
        return cipher.draw(keystream, *self.method.shape)

    def _drawn(self, cipher: Cipher, rows: Tensor) -> KeyParts:
        one = self.uploads.rows(rows[:1])
        owner = int(one.owners[0])
        protection = self.protections[owner]
        assert isinstance(protection, Keyed)
        keystream = protection.ring.keystream(
            method=cipher.name,
            policy=protection.policy,
            purpose=TRAIN,
            nonce=self.uploads.nonces[owner],
            ids=one.ids.numpy(),
            views=one.views.numpy(),
        )
        return cipher.draw(keystream, *self.method.shape)


def make_target(
    protections: Mapping[int, Protection],
    images: Tensor,
    labels: Tensor,
    owners: Tensor,
    **known: Any,
) -> Target:
    """Have owners protect and upload images.

    Args:
        protections: of every owner.
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        owners: int64 (N,), whose each is.
        **known: further fields of :class:`Target`.
    """
    first = next(iter(protections.values()))
    channels, height, width = images.shape[1:]
    shape = channels, height, width
    cipher = first.cipher if isinstance(first, Keyed) else None
    method = Method(first.name, cipher, first.policy, shape, first.params())
    protected = torch.empty(len(images), *first.output_shape(*shape), dtype=torch.uint8)
    ids = torch.zeros(len(images), dtype=torch.int64)
    nonces = {owner: new_nonce() for owner in protections}
    for owner, protection in protections.items():
        rows = (owners == owner).nonzero().squeeze(1)
        ids[rows] = torch.arange(len(rows))
        context = Context(TRAIN, nonces[owner], ids[rows].numpy())
        protected[rows] = protection.protect(images[rows], context)
    uploads = Uploads(protected, owners, ids, torch.zeros_like(ids), nonces)
    return Target(method, uploads, images, labels, protections, **known)


def keyed(cipher: Cipher, policy: Policy, owners: int) -> dict[int, Protection]:
    """Owners 0..owners − 1 with fresh keys, which they share under the policy ``same``."""
    ring = KeyRing.generate()
    rings = (
        ring.for_participant(i) if policy == "same" else KeyRing.generate(i) for i in range(owners)
    )
    return {i: Keyed(cipher, one, policy) for i, one in enumerate(rings)}


def _oracle(protections: Mapping[int, Protection]) -> Oracle:
    """An owner's device in the attacker's hands: encrypts what it is given, as new images."""

    def encrypt(images: Tensor, owner: int) -> Tensor:
        context = Context(TRAIN, new_nonce(), np.arange(len(images)))
        return protections[owner].protect(images, context)

    return encrypt


def _ring(protection: Protection) -> KeyRing:
    assert isinstance(protection, Keyed)
    return protection.ring
