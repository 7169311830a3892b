"""The exchange: bounded, patient, and answered for every request, whatever the nodes do."""

import gc
import weakref

import pytest
from fake_grid import FakeGrid, answer, link, make_shard
from flwr.app import Error, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc.wire import pack
from server.exchange import Answer, Request, window_of


def requests(count: int) -> list[Request]:
    return [Request(node, "query.upload", pack({}), (node,)) for node in range(count)]


def test_every_request_is_answered_and_few_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, grid = link(monkeypatch, lambda node, *_: [(0.5 + node % 3, answer([node]))])
    answers = [a for batch in exchange.ask(requests(500)) for a in batch]
    assert sorted(a.request.node for a in answers) == list(range(500))
    assert all(a.content is not None for a in answers)
    assert grid.most <= 64
    assert all(0.5 <= a.seconds < 3 for a in answers)


def test_the_window_follows_the_size_of_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.exchange._IN_FLIGHT", 10_000)
    big = make_shard(0, rows=40)  # about 2 kB
    exchange, grid = link(monkeypatch, lambda node, *_: [(0.1, answer([node], [big]))])
    for batch in exchange.ask(requests(50)):
        batch.clear()
    assert grid.most == 4


@settings(deadline=None, max_examples=40)
@given(
    window=st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, 12))),
    replies=st.lists(
        st.tuples(st.floats(0, 3).map(lambda s: round(s, 1)), st.sampled_from([0, 1, 60])),
        min_size=1,
        max_size=40,
    ),
)
def test_the_window_is_never_exceeded_and_its_least_is_kept_busy(
    window: tuple[int, int], replies: list[tuple[float, int]]
) -> None:
    def behaviour(node: int, *_: object) -> list[tuple[float, RecordDict]]:
        delay, rows = replies[node]
        return [(delay, answer([node], [make_shard(node, rows=rows)] if rows else []))]

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("server.exchange._IN_FLIGHT", 10_000)  # three of the largest
        exchange, grid = link(monkeypatch, behaviour)
        exchange.window = window
        answers = [a for batch in exchange.ask(requests(len(replies))) for a in batch]
    assert sorted(a.request.node for a in answers) == list(range(len(replies)))
    assert min(window[0], len(replies)) <= grid.most <= window[1]


def test_processes_that_share_the_work_have_one_request_each_and_one_more() -> None:
    assert window_of(2) == (2, 4)
    assert window_of(96) == (96, 192)


def test_where_answers_come_fast_they_are_looked_for_often(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, grid = link(monkeypatch, lambda node, *_: [(0.002, answer([node]))])
    exchange.window = window_of(1)
    began = grid.clock.now
    for _ in exchange.ask(requests(200)):
        pass
    assert grid.clock.now - began < 3 * 0.002 * 200 / 2


def test_the_silent_are_given_up_after_the_deadline_without_any_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange, grid = link(monkeypatch, lambda node, *_: [(0.2, answer([]))] if node else [])
    began = grid.clock.now
    answers = [a for batch in exchange.ask(requests(30)) for a in batch]
    (lost,) = (a for a in answers if a.content is None)
    assert lost.request.node == 0
    assert "deadline of 5 s" in lost.reason
    assert 5 < grid.clock.now - began < 5 + 3 * 0.3 + 30 * 0.3


def test_one_slow_answer_after_another_costs_nobody_his_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nodes share client processes: the last waits for all before it, far beyond the deadline."""
    exchange, _ = link(monkeypatch, lambda node, *_: [(4.0 * (node + 1), answer([node]))])
    answers = [a for batch in exchange.ask(requests(4)) for a in batch]
    assert all(a.content is not None for a in answers)


def test_processes_may_take_their_time_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, _ = link(monkeypatch, lambda node, *_: [(100.0, answer([node]))], deadline=1)
    answers = [a for batch in exchange.ask(requests(2)) for a in batch]
    assert all(a.content is not None for a in answers)


def test_a_late_answer_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, grid = link(
        monkeypatch, lambda node, *_: [(30.0 if node == 0 else 0.1, answer([node]))]
    )
    first = [a for batch in exchange.ask(requests(3)) for a in batch]
    assert [a.content for a in first if a.request.node == 0] == [None]
    grid.clock.now += 30
    second = [a for batch in exchange.ask([requests(3)[2]]) for a in batch]
    assert {a.request.node for a in second} == {0, 2}
    assert all(a.content is not None for a in second)


def test_doubled_and_foreign_replies_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [(0.1, answer([1])), (0.1, answer([2]))]
    exchange, _ = link(monkeypatch, lambda node, *_: twice)
    pull = FakeGrid.pull_messages

    def careless(self: FakeGrid, ids: object) -> list[object]:
        return pull(self, [w[1] for w in self.waiting])  # whatever has come, asked for or not

    monkeypatch.setattr(FakeGrid, "pull_messages", careless)
    answers = [a for batch in exchange.ask(requests(3)) for a in batch]
    assert sorted(a.request.node for a in answers) == [0, 1, 2]


def test_errors_are_answers_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [Error(1, "x" * 10_000), Error(2, "ray.exceptions.ActorDiedError: ..."), Error(3)]
    exchange, _ = link(monkeypatch, lambda node, *_: [(0.1, errors[node])])
    answers = [a for batch in exchange.ask(requests(3)) for a in batch]
    reasons = {a.request.node: a.reason for a in answers}
    assert all(a.content is None for a in answers)
    assert len(reasons[0]) < 300
    assert reasons[1] == "its process died"
    assert "3" in reasons[2]


def test_what_cannot_be_sent_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, grid = link(monkeypatch, lambda node, *_: [(0.1, answer([node]))])
    grid.refuse = set(range(1, 100))
    began = grid.clock.now
    answers = [a for batch in exchange.ask(requests(100)) for a in batch]
    assert len(answers) == 100
    assert {a.request.node for a in answers if a.content is not None} == {0}
    assert grid.clock.now - began < 5


def test_bytes_that_are_no_message_harm_only_their_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, _ = link(monkeypatch, lambda node, *_: [(0.1, answer([node]))])
    pull = FakeGrid.pull_messages

    def inflate(self: FakeGrid, ids: list[str]) -> list[object]:
        for message in (replies := pull(self, ids)):
            if message.metadata.src_node_id == 1:
                raise ValueError("no message")
        return list(replies)

    monkeypatch.setattr(FakeGrid, "pull_messages", inflate)
    for _ in range(2):  # the first time, the bad one is lost with all that came beside it
        answers = [a for batch in exchange.ask(requests(20)) for a in batch]
        assert len(answers) == 20
    assert {a.request.node for a in answers if a.content is None} == {1}
    assert [a.reason for a in answers if a.content is None] == ["unreadable answer: ValueError"]


def test_a_lost_link_is_not_taken_for_a_bad_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, _ = link(monkeypatch, lambda node, *_: [])

    def down(self: FakeGrid, ids: object) -> list[object]:
        raise ConnectionError

    monkeypatch.setattr(FakeGrid, "pull_messages", down)
    with pytest.raises(ConnectionError):
        list(exchange.ask(requests(2)))


@pytest.mark.usefixtures("quick_collections")
def test_no_reply_outlives_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(RecordDict):
        pass

    alive: list[weakref.ref[Watched]] = []

    def behaviour(node: int, *_: object) -> list[tuple[float, RecordDict]]:
        content = Watched(dict(answer([node], [make_shard(node)])))
        alive.append(weakref.ref(content))
        return [(0.1 * node, content)]

    exchange, grid = link(monkeypatch, behaviour)
    seen = 0
    for batch in exchange.ask(requests(20)):
        seen += len(batch)
        batch.clear()
        gc.collect()
        assert sum(ref() is not None for ref in alive) == len(grid.waiting)
    assert seen == 20


@settings(deadline=None, max_examples=60)
@given(
    plans=st.lists(
        st.lists(st.floats(0, 40).map(lambda s: round(s, 1)), max_size=2), min_size=1, max_size=12
    )
)
def test_any_timing_answers_every_request_once(plans: list[list[float]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        exchange, _ = link(
            monkeypatch, lambda node, *_: [(delay, answer([node])) for delay in plans[node]]
        )
        answers: list[Answer] = [a for batch in exchange.ask(requests(len(plans))) for a in batch]
    assert {a.request.node for a in answers} == set(range(len(plans)))
    for node, plan in enumerate(plans):
        own = [a for a in answers if a.request.node == node]
        assert sum(a.content is None for a in own) <= 1  # given up at most once
        if not plan:
            assert [a.content for a in own] == [None]


def test_a_failed_node_is_given_the_time_that_processes_take_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead = Error(code=0, reason="<class 'ray.exceptions.ActorUnavailableError'>:<'gone'>")
    exchange, grid = link(monkeypatch, lambda node, *_: [(3.0, answer([node]) if node else dead)])
    for _ in exchange.ask(requests(2)):
        pass
    before = grid.clock.now
    exchange.rest()
    assert 3.0 <= grid.clock.now - before < 3.5
    before = grid.clock.now
    exchange.rest()
    assert grid.clock.now == before, "once is enough"
