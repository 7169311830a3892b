"""The inference phases: take query images, answer with class scores, take back counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict

from fedenc.errors import ShardError
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import ENCRYPTED, FOREIGN, PLAIN, Condition
from fedenc.shard import Shard, check
from fedenc.wire import pack, pack_arrays, unpack_shards
from server.collector import QUERIES, SCORE, Failure, Phase, Roster, collect, concerned
from server.exchange import Answer, Exchange
from server.rules import rules

Scores = npt.NDArray[np.float32]


class Predictor(Protocol):
    """Whoever turns query images into class scores."""

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Scores:
        """uint8 N×C×H×W to float32 N×classes; ``foreign`` asks the classifier that never met the
        participants' transformation network."""


@dataclass(frozen=True)
class Tally:
    """Counts one participant reported about its own queries."""

    correct: dict[str, int]
    total: dict[str, int]
    agree: int | None
    pairs: int | None


@dataclass
class Answered:
    """What came of the inference phases."""

    tallies: dict[int, Tally] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)


def answer_queries(
    exchange: Exchange,
    roster: Roster,
    predictor: Predictor,
    view: ProviderView,
    members: set[int],
    progress: Callable[[str, int, int], None],
) -> Answered:
    """Ask members and outsiders for queries, answer them, and let them score the answers.

    Args:
        members: participants whose upload was accepted.
        progress: called with phase, participants served, and participants wanted.
    """
    everybody = view.participants + view.outsiders
    wanted = members | set(range(view.participants, everybody))
    scores: dict[int, dict[str, Scores]] = {}
    answered = Answered()

    queries = Phase(
        QUERIES,
        lambda ids, attempt: pack(
            {
                "participants": _listed(ids),
                "attempt": attempt,
                "conditions": list(view.conditions),
            }
        ),
        lambda answer, facts: _predict(answer, facts, roster, scores, predictor, view, wanted),
        set(wanted),
    )
    answered.failed += collect(
        exchange,
        roster,
        queries,
        attempts=view.server.attempts,
        progress=lambda done: progress("queries", done, len(wanted)),
    )

    score = Phase(
        SCORE,
        lambda ids, attempt: _answers(ids or (), scores, attempt),
        lambda answer, facts: _count(answer, facts, roster, scores, answered.tallies),
        set(scores),
    )
    answered.failed += collect(
        exchange,
        roster,
        score,
        attempts=view.server.attempts,
        progress=lambda done: progress("score", done, len(scores)),
    )
    return answered


def _listed(ids: tuple[int, ...] | None) -> list[int] | None:
    return None if ids is None else list(ids)


def _predict(
    answer: Answer,
    facts: Mapping[str, Any],
    roster: Roster,
    scores: dict[int, dict[str, Scores]],
    predictor: Predictor,
    view: ProviderView,
    wanted: set[int],
) -> tuple[set[int], dict[int, str]]:
    """Check the query shards of one reply and answer them, in one batch a classifier."""
    assert answer.content is not None
    good: list[Shard] = []
    refused: dict[int, str] = {}
    seen: set[tuple[int, str]] = set()
    for shard in unpack_shards(answer.content):
        if isinstance(shard, ShardError):
            refused |= dict.fromkeys(concerned(answer, roster), f"queries refused: {shard}")
            continue
        try:
            purpose = shard.manifest.purpose
            if purpose not in view.conditions:
                raise ShardError(f"condition {purpose!r} was not asked for")
            check(shard, rules(view, purpose), purpose=purpose)
            if roster.node_of(shard.participant) != answer.request.node:
                raise ShardError("sent by a node that does not host it")
            if (shard.participant, purpose) in seen:
                raise ShardError(f"condition {purpose!r} comes twice")
            seen.add((shard.participant, purpose))
            if shard.participant in wanted and shard.participant not in scores:
                good.append(shard)
        except ShardError as error:
            refused[shard.participant] = f"queries refused: {error}"
    good = [shard for shard in good if shard.participant not in refused]
    for foreign in (False, True):
        asked = [shard for shard in good if (shard.manifest.purpose == FOREIGN) == foreign]
        if asked:
            images = np.concatenate([shard.images for shard in asked])
            batch = predictor.predict(images, foreign=foreign)
            ends = np.cumsum([len(shard.images) for shard in asked])[:-1]
            for shard, part in zip(asked, np.split(batch, ends), strict=True):
                scores.setdefault(shard.participant, {})[shard.manifest.purpose] = part
    return {shard.participant for shard in good} | _idle(answer, facts, roster), refused


def _idle(answer: Answer, facts: Mapping[str, Any], roster: Roster) -> set[int]:
    """Participants that say they have nothing to ask under these conditions."""
    stated = facts.get("nothing")
    node = answer.request.node
    return {
        i
        for i in (stated if isinstance(stated, list) else ())
        if type(i) is int and roster.node_of(i) == node
    }


def _answers(
    ids: tuple[int, ...], scores: Mapping[int, Mapping[str, Scores]], attempt: int
) -> RecordDict:
    content = pack({"participants": list(ids), "attempt": attempt})
    for i in ids:
        content[f"scores.{i}"] = pack_arrays(dict(scores[i]))
    return content


def _count(
    answer: Answer,
    facts: Mapping[str, Any],
    roster: Roster,
    scores: Mapping[int, Mapping[Condition, Scores]] | Mapping[int, Mapping[str, Scores]],
    tallies: dict[int, Tally],
) -> tuple[set[int], dict[int, str]]:
    """Take over the counts of one reply, as far as they can be true."""
    reported = facts.get("scores")
    served: set[int] = set()
    refused: dict[int, str] = {}
    for i in answer.request.participants or ():
        entry = reported.get(str(i)) if isinstance(reported, dict) else None
        if entry is None or roster.node_of(i) != answer.request.node:
            continue
        sizes = {condition: len(part) for condition, part in scores[i].items()}
        if tally := _tally(entry, sizes):
            tallies[i] = tally
            served.add(i)
        else:
            refused[i] = f"impossible counts for queries {sizes}"
    return served, refused


def _tally(entry: Any, sizes: Mapping[str, int]) -> Tally | None:
    """The entry as counts, or None if they cannot be right."""
    if not isinstance(entry, dict) or entry.get("total") != sizes:
        return None
    correct, agree, pairs = entry.get("correct"), entry.get("agree"), entry.get("pairs")
    if not isinstance(correct, dict) or correct.keys() != sizes.keys():
        return None
    if not all(type(n) is int and 0 <= n <= sizes[c] for c, n in correct.items()):
        return None
    if agree is None and pairs is None:
        return Tally(correct, dict(sizes), None, None)
    most = min(sizes.get(PLAIN, 0), sizes.get(ENCRYPTED, 0))
    if type(agree) is int and type(pairs) is int and 0 <= agree <= pairs <= most:
        return Tally(correct, dict(sizes), agree, pairs)
    return None
