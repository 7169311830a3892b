"""The score phase: hand back class scores, and take the counts that participants make of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fedenc.scenario.sections import ENCRYPTED, PLAIN
from fedenc.wire import pack_arrays
from server.collector import SCORE, Phase, Roster, Verdict, asking
from server.exchange import Answer
from server.trainer import Scores


@dataclass(frozen=True)
class Tally:
    """Counts one participant reported about its own queries."""

    correct: dict[str, int]
    total: dict[str, int]
    agree: int | None
    pairs: int | None
    both: int | None  # pairs whose two forms were both answered right


class Score(Phase):
    """Has everybody who was answered score its own answers.

    Args:
        scores: of each participant, by condition.

    Attributes:
        tallies: counts of each participant, as far as they can be true.
    """

    kind = SCORE

    def __init__(self, roster: Roster, scores: Mapping[int, Mapping[str, Scores]]) -> None:
        super().__init__(roster, scores)
        self._scores = scores
        self.tallies: dict[int, Tally] = {}

    def request(self, ids: tuple[int, ...] | None, attempt: int) -> RecordDict:
        """Send the scores of the participants asked: one array a condition, and whose rows are
        whose. Many small arrays would cost the driver more than all else in this phase."""
        parts: dict[str, list[Scores]] = {}
        ends: dict[str, int] = {}
        rows: dict[str, dict[str, tuple[int, int]]] = {}
        for i in ids or ():
            for condition, scores in self._scores[i].items():
                first = ends.get(condition, 0)
                ends[condition] = first + len(scores)
                rows.setdefault(str(i), {})[condition] = first, ends[condition]
                parts.setdefault(condition, []).append(scores)
        content = asking(ids or (), attempt, rows=rows)
        content["scores"] = pack_arrays({c: np.concatenate(found) for c, found in parts.items()})
        return content

    def accept(self, answer: Answer, facts: Mapping[str, Any]) -> Verdict:
        """Take over the counts of one reply, as far as they can be true."""
        reported = facts.get("scores")
        served: set[int] = set()
        refused: dict[int, str] = {}
        for i in answer.request.participants or ():
            entry = reported.get(str(i)) if isinstance(reported, dict) else None
            if entry is None or self.roster.node_of(i) != answer.request.node:
                continue
            sizes = {condition: len(part) for condition, part in self._scores[i].items()}
            if tally := read_tally(entry, sizes):
                self.tallies[i] = tally
                served.add(i)
            else:
                refused[i] = f"impossible counts for queries {sizes}"
        return served, refused


def read_tally(entry: Any, sizes: Mapping[str, int]) -> Tally | None:
    """What a participant reported as counts, or None if it cannot be right.

    Args:
        sizes: queries that it was answered, by condition.
    """
    if not isinstance(entry, dict) or entry.get("total") != sizes:
        return None
    correct = entry.get("correct")
    agree, pairs, both = (entry.get(name) for name in ("agree", "pairs", "both"))
    if not isinstance(correct, dict) or correct.keys() != sizes.keys():
        return None
    if not all(type(n) is int and 0 <= n <= sizes[c] for c, n in correct.items()):
        return None
    if agree is None and pairs is None and both is None:
        return Tally(correct, dict(sizes), None, None, None)
    if not (type(agree) is int and type(pairs) is int and type(both) is int):
        return None
    # Pairs are all plain and all encrypted queries; who is right twice gave one answer twice.
    right = correct.get(PLAIN, 0), correct.get(ENCRYPTED, 0)
    most = min(sizes.get(PLAIN, 0), sizes.get(ENCRYPTED, 0))
    possible = 0 <= agree <= pairs <= most and max(0, sum(right) - pairs) <= both
    if possible and both <= min(agree, *right):
        return Tally(correct, dict(sizes), agree, pairs, both)
    return None
