"""The query phase: take query images without labels, and compute their class scores."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedenc.errors import ShardError
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import FOREIGN
from fedenc.shard import Shard, check
from server.collector import QUERIES, Phase, Roster, Verdict, asking
from server.exchange import Answer
from server.rules import rules
from server.trainer import Awaited, Predictor, Scores

_AHEAD = 2  # batches at the predictor: it works on one while the next is on its way


@dataclass(frozen=True)
class _Batch:
    """Queries that are being answered, but for their images."""

    asked: tuple[tuple[int, str, int], ...]  # participant, condition and number of queries
    scores: Awaited


class Queries(Phase):
    """Asks members and outsiders for queries, and has them answered.

    While the predictor answers, participants prepare the next queries. Batches are what nodes send,
    and nobody's scores depend on when they are sent.

    Args:
        members: participants whose upload was accepted.

    Attributes:
        scores: of each participant, by condition, in the order of its queries; complete when the
            phase has finished.
    """

    kind = QUERIES

    def __init__(
        self, roster: Roster, view: ProviderView, members: Iterable[int], predictor: Predictor
    ) -> None:
        outsiders = range(view.participants, view.participants + view.outsiders)
        super().__init__(roster, {*members, *outsiders})
        self._rules = {condition: rules(view, condition) for condition in view.conditions}
        self._predictor = predictor
        self._entitled = frozenset(self.wanted)
        self._answered: set[int] = set()  # or being answered
        self._batches: deque[_Batch] = deque()
        self.scores: dict[int, dict[str, Scores]] = {}

    def request(self, ids: tuple[int, ...] | None, attempt: int) -> RecordDict:
        """Ask for query images, by condition."""
        return asking(ids, attempt, conditions=list(self._rules))

    def accept(self, answer: Answer, facts: Mapping[str, Any]) -> Verdict:
        """Check the query shards of one reply and have them scored, in one batch a classifier.

        Raises:
            TrainingError: an earlier batch cannot be answered.
            EngineError: the predictor does not answer in time.
        """
        seen: dict[tuple[int, str], Shard] = {}

        def judge(shard: Shard) -> None:
            purpose = shard.manifest.purpose
            if purpose not in self._rules:
                raise ShardError(f"condition {purpose!r} was not asked for")
            check(shard, self._rules[purpose], purpose=purpose)
            if (shard.participant, purpose) in seen:
                raise ShardError(f"condition {purpose!r} comes twice")
            seen[shard.participant, purpose] = shard

        refused = self.judge_shards(answer, judge, "queries")
        good = [
            shard
            for shard in seen.values()
            if shard.participant in self._entitled
            and shard.participant not in self._answered
            and shard.participant not in refused
        ]
        for foreign in (False, True):
            self._submit([s for s in good if (s.manifest.purpose == FOREIGN) == foreign], foreign)
        served = {shard.participant for shard in good}
        self._answered |= served
        return served | self._idle(answer, facts), refused

    def finish(self) -> None:
        """Wait for all scores.

        Raises:
            As ``accept``.
        """
        self._take(leave=0)

    def _submit(self, shards: list[Shard], foreign: bool) -> None:
        if not shards:
            return
        self._take(leave=_AHEAD - 1)
        images = np.concatenate([shard.images for shard in shards])
        asked = tuple((s.participant, s.manifest.purpose, len(s.images)) for s in shards)
        self._batches.append(_Batch(asked, self._predictor.predict(images, foreign=foreign)))

    def _take(self, leave: int) -> None:
        """Wait for the scores of the oldest batches, until only so many are left."""
        while len(self._batches) > leave:
            batch = self._batches.popleft()
            ends = np.cumsum([count for _, _, count in batch.asked])[:-1]
            parts = np.split(batch.scores(), ends)
            for (participant, condition, _), part in zip(batch.asked, parts, strict=True):
                self.scores.setdefault(participant, {})[condition] = part

    def _idle(self, answer: Answer, facts: Mapping[str, Any]) -> set[int]:
        """Participants that say they have nothing to ask under these conditions."""
        stated = facts.get("nothing")
        node = answer.request.node
        return {
            i
            for i in (stated if isinstance(stated, list) else ())
            if type(i) is int and self.roster.node_of(i) == node
        }
