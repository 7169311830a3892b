"""The query phase: take query images without labels, and compute their class scores."""

from collections.abc import Iterable, Mapping
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
from server.trainer import Predictor, Scores


class Queries(Phase):
    """Asks members and outsiders for queries, and has them answered.

    Args:
        members: participants whose upload was accepted.

    Attributes:
        scores: of each participant, by condition, in the order of its queries.
    """

    kind = QUERIES

    def __init__(
        self, roster: Roster, view: ProviderView, members: Iterable[int], predictor: Predictor
    ) -> None:
        outsiders = range(view.participants, view.participants + view.outsiders)
        super().__init__(roster, {*members, *outsiders})
        self._view, self._predictor = view, predictor
        self._entitled = frozenset(self.wanted)
        self.scores: dict[int, dict[str, Scores]] = {}

    def request(self, ids: tuple[int, ...] | None, attempt: int) -> RecordDict:
        """Ask for query images, by condition."""
        return asking(ids, attempt, conditions=list(self._view.conditions))

    def accept(self, answer: Answer, facts: Mapping[str, Any]) -> Verdict:
        """Check the query shards of one reply and score them, in one batch a classifier."""
        seen: dict[tuple[int, str], Shard] = {}

        def judge(shard: Shard) -> None:
            purpose = shard.manifest.purpose
            if purpose not in self._view.conditions:
                raise ShardError(f"condition {purpose!r} was not asked for")
            check(shard, rules(self._view, purpose), purpose=purpose)
            if (shard.participant, purpose) in seen:
                raise ShardError(f"condition {purpose!r} comes twice")
            seen[shard.participant, purpose] = shard

        refused = self.judge_shards(answer, judge, "queries")
        good = [
            shard
            for shard in seen.values()
            if shard.participant in self._entitled
            and shard.participant not in self.scores
            and shard.participant not in refused
        ]
        for foreign in (False, True):
            self._score([s for s in good if (s.manifest.purpose == FOREIGN) == foreign], foreign)
        return {shard.participant for shard in good} | self._idle(answer, facts), refused

    def _score(self, shards: list[Shard], foreign: bool) -> None:
        if not shards:
            return
        images = np.concatenate([shard.images for shard in shards])
        scores = self._predictor.predict(images, foreign=foreign)
        ends = np.cumsum([len(shard.images) for shard in shards])[:-1]
        for shard, part in zip(shards, np.split(scores, ends), strict=True):
            self.scores.setdefault(shard.participant, {})[shard.manifest.purpose] = part

    def _idle(self, answer: Answer, facts: Mapping[str, Any]) -> set[int]:
        """Participants that say they have nothing to ask under these conditions."""
        stated = facts.get("nothing")
        node = answer.request.node
        return {
            i
            for i in (stated if isinstance(stated, list) else ())
            if type(i) is int and self.roster.node_of(i) == node
        }
