"""Participants that misbehave on purpose, for simulations and tests.

A fault shows at upload only, and at every attempt unless the scenario makes faults transient. The
scenario's seed decides which participants are faulty.
"""

import os
import signal
import time
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from fedenc.scenario import Scenario
from fedenc.seeding import numpy_generator
from fedenc.shard import Shard, seal

Kind = Literal["raise", "die", "silent", "garble", "wrong_shape", "duplicate"]


class InjectedFaultError(Exception):
    """Raised by a participant whose fault is to raise."""


@dataclass(frozen=True)
class Fault:
    """What one participant does wrong."""

    kind: Kind
    transient: bool
    deadline: float  # seconds a silent one sleeps

    def strikes(self, attempt: int) -> bool:
        """Whether the fault shows at this attempt (0 is the first)."""
        return not self.transient or attempt == 0

    def before(self) -> bool:
        """What happens instead of an upload; True if the participant then stays silent."""
        if self.kind == "raise":
            raise InjectedFaultError("participant raised")
        if self.kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "silent":
            time.sleep(self.deadline)
            return True
        return False

    def spoil(self, shard: Shard) -> Shard:
        """The shard as a faulty participant would send it."""
        if self.kind == "garble":
            images = shard.images.copy()
            images.reshape(-1)[::97] ^= 0x5A
            return replace(shard, images=images)
        if self.kind == "wrong_shape":
            return _resealed(shard, images=shard.images[..., :-1])
        if self.kind == "duplicate":
            return _resealed(shard, rows=np.append(np.arange(shard.manifest.rows), 0))
        return shard


def _resealed(
    shard: Shard,
    *,
    images: npt.NDArray[np.uint8] | None = None,
    rows: npt.NDArray[np.int64] | slice = slice(None),
) -> Shard:
    """The shard with other images, or some of its rows, and the digest that belongs to them."""
    m = shard.manifest
    return seal(
        participant=m.participant,
        purpose=m.purpose,
        nonce=bytes.fromhex(m.nonce),
        cipher=m.cipher,
        params=m.params,
        images=(shard.images if images is None else images)[rows],
        ids=shard.ids[rows],
        original=m.original,
        labels=None if shard.labels is None else shard.labels[rows],
        views=shard.views[rows],
        view_count=m.views,
    )


def assign(scenario: Scenario) -> dict[int, Fault]:
    """Draw who misbehaves: for each kind of fault, other participants that upload."""
    faults = scenario.faults
    kinds = [kind for kind, n in faults.counts().items() for _ in range(n)]
    order = numpy_generator(scenario.seed, "faults").permutation(scenario.clients.count)
    deadline = scenario.server.deadline
    return {
        int(i): Fault(cast(Kind, kind), faults.transient, deadline)
        for i, kind in zip(order, kinds, strict=False)
    }
