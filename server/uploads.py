"""The upload phase: from replies to a pool of checked shards."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import RecordDict

from fedenc.errors import QuorumError, ShardError
from fedenc.scenario import ProviderView
from fedenc.shard import TRAIN, Rules, Shard, check
from fedenc.wire import pack, unpack_shards
from server.collector import UPLOAD, Failure, Phase, Roster, ask_roster, collect, concerned
from server.exchange import Answer, Exchange
from server.pool import Pool
from server.rules import rules


@dataclass(frozen=True)
class Uploaded:
    """What the upload phase cost and lost."""

    failed: list[Failure]
    seconds: float
    resumed: int  # participants whose shards an earlier run had stored


def collect_uploads(
    exchange: Exchange,
    roster: Roster,
    pool: Pool,
    view: ProviderView,
    progress: Callable[[int], None],
) -> Uploaded:
    """Fill the pool with one shard a participant.

    Raises:
        QuorumError: fewer shards than the scenario needs, after all attempts.
        ShardError: an earlier run stored what this scenario does not allow.
    """
    began, resumed = time.monotonic(), len(pool)
    allowed = rules(view, TRAIN)
    phase = Phase(
        UPLOAD,
        _content,
        lambda answer, facts: _store(answer, roster, pool, allowed),
        set(range(view.participants)) - set(pool.participants),
    )
    if resumed:
        _check_stored(pool, allowed)
        ask_roster(exchange, roster)
    failed = collect(
        exchange,
        roster,
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


def _check_stored(pool: Pool, allowed: Rules) -> None:
    """Shards of an earlier run may be under a transformation network that was trained anew."""
    for i in pool.participants:
        m = pool.manifest(i)
        if (m.cipher, m.params) not in allowed.ciphers:
            raise ShardError(
                f"an earlier run stored images of participant {i} under {m.cipher} {m.params}, "
                f"which this one does not accept; start in another folder"
            )


def _content(participants: tuple[int, ...] | None, attempt: int) -> RecordDict:
    ids = None if participants is None else list(participants)
    return pack({"participants": ids, "attempt": attempt})


def _store(
    answer: Answer, roster: Roster, pool: Pool, allowed: Rules
) -> tuple[set[int], dict[int, str]]:
    """Check every shard of a reply and append the good ones at once."""
    good: dict[int, Shard] = {}
    refused: dict[int, str] = {}
    for shard in unpack_shards(answer.content) if answer.content is not None else ():
        if isinstance(shard, ShardError):
            refused |= dict.fromkeys(concerned(answer, roster), f"shard refused: {shard}")
            continue
        try:
            check(shard, allowed, purpose=TRAIN)
            if roster.node_of(shard.participant) != answer.request.node:
                raise ShardError("sent by a node that does not host it")
            if shard.participant in pool or shard.participant in good:
                continue  # a late reply beside a retry: stored once, and that is enough
            if pool.knows(shard.manifest.nonce) or any(
                shard.manifest.nonce == other.manifest.nonce for other in good.values()
            ):
                raise ShardError("nonce was used by another upload")
            good[shard.participant] = shard
        except ShardError as error:
            refused[shard.participant] = f"shard refused: {error}"
    pool.append(list(good.values()))
    return set(good), refused
