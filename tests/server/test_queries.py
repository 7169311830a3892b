"""Queries and scores: answered in the right order to the right participant, counted if possible."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fake_grid import Reply, answer, link, make_shard, provider_view
from flwr.app import Error, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc.errors import TrainingError
from fedenc.scenario.sections import Server
from fedenc.shard import Shard
from fedenc.wire import pack, unpack_arrays, unpack_facts
from server.app import Answered, answer_queries
from server.collector import SCORE, UPLOAD, Roster
from server.exchange import Exchange, Request
from server.phases.score import Tally, read_tally
from server.trainer import Awaited


class MeanPredictor:
    """A predictor whose answer shows which image it was asked about."""

    def __init__(self) -> None:
        self.batches = 0

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Awaited:
        self.batches += 1
        return lambda: -expected(images) if foreign else expected(images)


def expected(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.stack([images.mean((1, 2, 3)), images.max((1, 2, 3))], axis=1).astype(np.float32)


def queries(i: int, conditions: Sequence[str] = ("plain", "encrypted")) -> list[Shard]:
    return [make_shard(i, rows=2 + i, purpose=c) for c in conditions]


def counts(i: int, **changes: Any) -> dict[str, Any]:
    total = {"plain": 2 + i, "encrypted": 2 + i}
    return {
        "correct": {"plain": i, "encrypted": 1},
        "total": total,
        "agree": 1,
        "pairs": 2 + i,
        "both": 0,
    } | changes


class Asking:
    """One node a participant; what comes back for some of them is replaced."""

    def __init__(
        self, conditions: Sequence[str] = ("plain", "encrypted"), **replaced: dict[int, Any]
    ) -> None:
        self.conditions = conditions
        self.replaced = replaced
        self.received: dict[int, dict[str, npt.NDArray[Any]]] = {}

    def __call__(self, node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        special = self.replaced.get(kind.partition(".")[2], {}).get(node)
        if isinstance(special, RecordDict | Error):
            return [(0.1, special)]
        if kind == SCORE:
            entry = counts(node) if special is None else special
            return [(0.1, answer([node], scores={str(node): entry}))]
        if isinstance(special, dict):
            return [(0.1, answer([node], **special))]
        shards = queries(node, self.conditions) if special is None else special
        return [(0.1, answer([node], shards))]


def ask(
    monkeypatch: pytest.MonkeyPatch,
    world: Any,
    members: set[int] | None = None,
    predictor: MeanPredictor | None = None,
    **view: Any,
) -> tuple[Answered, MeanPredictor, Any]:
    exchange, grid = link(monkeypatch, world)
    seen = provider_view(**view)
    predictor = predictor or MeanPredictor()
    answered = answer_queries(
        exchange,
        Roster(tuple(range(5)), 5),
        predictor,
        seen,
        {0, 1, 2, 3} if members is None else members,
        lambda event: None,
    )
    return answered, predictor, grid


def test_everybody_is_answered_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, predictor, _ = ask(monkeypatch, Asking())
    assert answered.failed == []
    assert sorted(answered.tallies) == [0, 1, 2, 3, 4]
    assert answered.tallies[3] == Tally(
        {"plain": 3, "encrypted": 1}, {"plain": 5, "encrypted": 5}, 1, 5, 0
    )
    assert predictor.batches == 5


def watched_scores(monkeypatch: pytest.MonkeyPatch) -> dict[str, RecordDict]:
    """What every node is sent to score, filled in as it happens."""
    received: dict[str, RecordDict] = {}
    push = Exchange._push

    def watch(self: Exchange, request: Any) -> None:
        if request.kind == SCORE:
            received[request.node] = request.content
        push(self, request)

    monkeypatch.setattr(Exchange, "_push", watch)
    return received


def sent_scores(received: dict[str, RecordDict], i: int) -> dict[str, npt.NDArray[Any]]:
    """A participant's own rows of what its node was sent."""
    content = next(c for c in received.values() if i in unpack_facts(c)["participants"])
    arrays = unpack_arrays(content.array_records["scores"])
    rows = unpack_facts(content)["rows"][str(i)]
    return {condition: arrays[condition][slice(*own)] for condition, own in rows.items()}


def test_scores_go_back_in_the_order_of_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    received = watched_scores(monkeypatch)
    ask(monkeypatch, Asking())
    for i in range(5):
        scores = sent_scores(received, i)
        assert scores.keys() == {"plain", "encrypted"}
        for shard in queries(i):
            np.testing.assert_array_equal(scores[shard.manifest.purpose], expected(shard.images))


def test_foreign_queries_go_to_the_other_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    received = watched_scores(monkeypatch)
    conditions = ("encrypted", "foreign")
    _, predictor, _ = ask(monkeypatch, Asking(conditions), conditions=conditions)
    assert predictor.batches == 2 * 5
    for i in range(5):
        scores = sent_scores(received, i)
        encrypted, foreign = queries(i, conditions)
        np.testing.assert_array_equal(scores["encrypted"], expected(encrypted.images))
        np.testing.assert_array_equal(scores["foreign"], -expected(foreign.images))


def test_only_members_and_outsiders_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, predictor, grid = ask(monkeypatch, Asking(), members={1})
    assert sorted(answered.tallies) == [1, 4]
    assert predictor.batches == 2  # uploads that failed earn no answers
    assert {m.node for m in grid.sent if m.kind == SCORE} == {1, 4}


REFUSED: dict[str, Any] = {
    "labels": [*queries(2, ["plain"]), make_shard(2, purpose="encrypted", labels=np.arange(3))],
    "twice": [*queries(2), *queries(2, ["plain"])],
    "unasked": [*queries(2), make_shard(2, purpose="same-key")],
    "training": [make_shard(2)],
    "encrypted as plain": [make_shard(2, purpose="plain", cipher="pixel")],
    "plain as encrypted": [make_shard(2, purpose="encrypted", cipher="none", params={})],
    "in another's name": queries(1),
    "shape": [make_shard(2, purpose="plain", images=np.zeros((2, 3, 8, 8), np.uint8), rows=2)],
    "nobody's": queries(77),
    "error": Error(1, "broken"),
    "empty": RecordDict(),
    "none": [],
    "lazy, in another's name": {"nothing": [0, 1]},
    "lazy nonsense": {"nothing": "all"},
}


class SlowPredictor(MeanPredictor):
    """Notes how many batches it has at once; computes what it is waited for, or fails at one."""

    def __init__(self, failing: int | None = None) -> None:
        super().__init__()
        self.failing = failing
        self.waiting = self.most = 0

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Awaited:
        number, images = self.batches, images.copy()
        found = super().predict(images, foreign=foreign)
        self.waiting += 1
        self.most = max(self.most, self.waiting)

        def wait() -> npt.NDArray[np.float32]:
            self.waiting -= 1
            if number == self.failing:
                raise TrainingError("the trainer was lost")
            return found()

        return wait


def test_the_next_queries_are_taken_while_earlier_ones_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = SlowPredictor()
    answered, _, _ = ask(monkeypatch, Asking(), predictor=predictor)
    assert predictor.most == 2, "one is worked on, the next is there, and no more need memory"
    assert predictor.waiting == 0
    assert sorted(answered.tallies) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("batch", range(5))
def test_a_prediction_that_fails_ends_the_run_and_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    received = watched_scores(monkeypatch)
    with pytest.raises(TrainingError, match="the trainer was lost"):
        ask(monkeypatch, Asking(), predictor=SlowPredictor(failing=batch))
    assert not received, "nobody scores a part of the answers"


@settings(deadline=None, max_examples=25)
@given(delays=st.lists(st.floats(0.1, 3).map(lambda s: round(s, 1)), min_size=5, max_size=5))
def test_the_order_of_answers_changes_no_score(delays: list[float]) -> None:
    conditions = ("plain", "encrypted", "foreign")
    asking = Asking(conditions)

    def late(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        return [(delays[node], content) for _, content in asking(node, kind, facts)]

    with pytest.MonkeyPatch.context() as monkeypatch:
        received = watched_scores(monkeypatch)
        ask(monkeypatch, late, conditions=conditions, predictor=SlowPredictor())
    for i in range(5):
        scores = sent_scores(received, i)
        assert list(scores) == list(conditions)
        for shard in queries(i, conditions):
            sign = -1 if shard.manifest.purpose == "foreign" else 1
            answers = scores[shard.manifest.purpose]
            np.testing.assert_array_equal(answers, sign * expected(shard.images))


@pytest.mark.parametrize("what", REFUSED)
def test_refused_queries_hurt_only_their_sender(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    answered, _, _ = ask(monkeypatch, Asking(queries={2: REFUSED[what]}))
    assert sorted(answered.tallies) == [0, 1, 3, 4]
    assert [(f.id, f.phase) for f in answered.failed] == [(2, "queries")]
    assert answered.tallies[1].total == {"plain": 3, "encrypted": 3}


def test_who_has_nothing_to_ask_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, _, _ = ask(monkeypatch, Asking(queries={4: {"nothing": [4]}}))
    assert sorted(answered.tallies) == [0, 1, 2, 3]
    assert answered.failed == []


IMPOSSIBLE: dict[str, Any] = {
    "more right than asked": counts(2, correct={"plain": 5, "encrypted": 0}),
    "fewer than none": counts(2, correct={"plain": -1, "encrypted": 0}),
    "true": counts(2, correct={"plain": True, "encrypted": 0}),
    "half": counts(2, correct={"plain": 0.5, "encrypted": 0}),
    "another total": counts(2, total={"plain": 4, "encrypted": 9}),
    "a condition missing": counts(2, total={"plain": 4}, correct={"plain": 1}),
    "a condition more": counts(2, correct={"plain": 1, "encrypted": 1, "same-key": 1}),
    "more pairs than queries": counts(2, pairs=5),
    "more agreement than pairs": counts(2, agree=4, pairs=3),
    "agreement without pairs": counts(2, pairs=None),
    "pairs without both": counts(2, both=None),
    "more right twice than once": counts(2, both=2),
    "right twice without agreement": counts(2, agree=0, both=1),
    "fewer right twice than there must be": counts(2, correct={"plain": 4, "encrypted": 1}, both=0),
    "not counts": 7,
    "text": "all",
    "list": [1],
    "nothing": {},
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_counts_are_refused(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    answered, _, _ = ask(monkeypatch, Asking(score={2: IMPOSSIBLE[what]}))
    assert sorted(answered.tallies) == [0, 1, 3, 4]
    ((failure),) = answered.failed
    assert (failure.id, failure.phase) == (2, "score")
    assert "impossible counts" in failure.reason


@pytest.mark.parametrize(
    "content", [Error(1, "x"), RecordDict(), pack({"hosted": [2], "scores": [1]}), pack({})]
)
def test_unreadable_scores_are_failures(monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    answered, _, _ = ask(monkeypatch, Asking(score={2: content}))
    assert [(f.id, f.phase) for f in answered.failed] == [(2, "score")]


def test_counts_of_others_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    lie = answer([2], scores={str(i): counts(i, correct={"plain": 0}) for i in range(5)})
    answered, _, _ = ask(monkeypatch, Asking(score={2: lie}))
    assert answered.tallies[3].correct == {"plain": 3, "encrypted": 1}
    assert [f.id for f in answered.failed] == [2]


def test_pairs_are_bounded_by_the_paired_conditions_alone() -> None:
    """The parts of the test set behind the conditions may differ in size by one."""
    sizes = {"plain": 9, "encrypted": 9, "same-key": 8}
    entry = {"correct": dict.fromkeys(sizes, 1), "total": sizes, "agree": 9, "pairs": 9, "both": 1}
    assert read_tally(entry, sizes) == Tally(entry["correct"], sizes, 9, 9, 1)  # type: ignore[arg-type]
    unpaired = {"correct": {"plain": 1}, "total": {"plain": 9}, "agree": 1, "pairs": 1, "both": 1}
    assert read_tally(unpaired, {"plain": 9}) is None


def test_an_upload_that_comes_during_queries_changes_no_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A late answer of an earlier phase must not be entered into this one's accounts."""
    failing = Asking(queries={1: Error(1, "why it failed")})

    def world(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        return [(9.0, answer([1]))] if kind == UPLOAD else failing(node, kind, facts)

    exchange, grid = link(monkeypatch, world)
    exchange._startup = 0.0  # so that the upload is given up after the deadline of five seconds
    list(exchange.ask([Request(1, UPLOAD, pack({}), (1,))]))
    grid.clock.now += 3.95  # a moment before it comes after all
    answered = answer_queries(
        exchange,
        Roster(tuple(range(5)), 5),
        MeanPredictor(),
        provider_view(server=Server(deadline=5.0, attempts=1)),
        {0, 1, 2, 3},
        lambda event: None,
    )
    assert not exchange._given_up
    assert [(f.id, f.reason) for f in answered.failed] == [(1, "its node failed: why it failed")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["plain", "encrypted", "x"]), inner, max_size=3)
    ),
)


@settings(deadline=None)
@given(
    entry=st.fixed_dictionaries(
        {},
        optional={name: json_values for name in ("correct", "total", "agree", "pairs", "both")},  # noqa: C420
    )
    | json_values
)
def test_any_counts_are_possible_or_refused(entry: Any) -> None:
    sizes = {"plain": 3, "encrypted": 3}
    tally = read_tally(entry, sizes)
    if tally is not None:
        assert tally.total == sizes
        assert all(0 <= tally.correct[c] <= 3 for c in sizes)
