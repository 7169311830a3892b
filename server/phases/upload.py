"""The upload phase: from replies to a pool of checked shards."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import RecordDict

from fedenc.errors import QuorumError, ShardError
from fedenc.scenario import ProviderView
from fedenc.shard import TRAIN, Shard, check
from server.collector import (
    UPLOAD,
    Failure,
    Phase,
    Roster,
    Verdict,
    ask_roster,
    asking,
    collect,
)
from server.exchange import Answer, Exchange
from server.pool import PoolWriter
from server.rules import rules


@dataclass(frozen=True)
class Uploaded:
    """What the upload phase cost and lost."""

    failed: list[Failure]
    seconds: float
    resumed: int  # participants whose shards an earlier run had stored


class Upload(Phase):
    """Asks everybody whose shard the pool lacks for one.

    Raises:
        ShardError: an earlier run stored what this scenario does not allow.
    """

    kind = UPLOAD

    def __init__(self, roster: Roster, view: ProviderView, pool: PoolWriter) -> None:
        super().__init__(roster, set(range(view.participants)) - set(pool.participants))
        self._pool, self._rules = pool, rules(view, TRAIN)
        for i in pool.participants:  # a transformation network may have been trained anew since
            m = pool.manifest(i)
            if (m.cipher, m.params) not in self._rules.ciphers:
                raise ShardError(
                    f"an earlier run stored images of participant {i} under {m.cipher} {m.params}, "
                    f"which this one does not accept; start in another folder"
                )

    def request(self, ids: tuple[int, ...] | None, attempt: int) -> RecordDict:
        """Ask for training shards."""
        return asking(ids, attempt)

    def accept(self, answer: Answer, facts: Mapping[str, Any]) -> Verdict:
        """Check every shard of a reply and append the good ones at once."""
        good: dict[int, Shard] = {}

        def judge(shard: Shard) -> None:
            check(shard, self._rules, purpose=TRAIN)
            if shard.participant in self._pool or shard.participant in good:
                return  # a late reply beside a retry: stored once, and that is enough
            nonce = shard.manifest.nonce
            if self._pool.knows(nonce) or any(nonce == s.manifest.nonce for s in good.values()):
                raise ShardError("nonce was used by another upload")
            good[shard.participant] = shard

        refused = self.judge_shards(answer, judge, "shard")
        self._pool.append(list(good.values()))
        return set(good), refused


def collect_uploads(
    exchange: Exchange,
    roster: Roster,
    pool: PoolWriter,
    view: ProviderView,
    progress: Callable[[int], None],
) -> Uploaded:
    """Fill the pool with one shard a participant.

    Args:
        progress: called with the number of participants whose shard is stored.

    Raises:
        QuorumError: fewer shards than the scenario needs, after all attempts.
        ShardError: an earlier run stored what this scenario does not allow.
    """
    began, resumed = time.monotonic(), len(pool)
    phase = Upload(roster, view, pool)
    if resumed:
        ask_roster(exchange, roster)
    failed = collect(
        exchange,
        phase,
        attempts=view.server.attempts,
        progress=lambda done: progress(resumed + done),
    )
    if len(pool) < view.quorum:
        reasons = "; ".join(f"participant {f.id}: {f.reason}" for f in failed[:3])
        raise QuorumError(
            f"only {len(pool)} of {view.participants} participants uploaded, server.min_clients "
            f"asks for {view.quorum} ({reasons}); mend them or lower the quorum, then --resume"
        )
    return Uploaded(failed, time.monotonic() - began, resumed)
