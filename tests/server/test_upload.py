"""The upload phase over nodes that fail in every way: exact accounts, nobody lost, nobody twice."""

import gc
import re
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from fake_grid import FakeGrid, Reply, answer, link, make_shard, provider_view
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import server
from fedenc.errors import QuorumError
from fedenc.shard import Shard
from fedenc.wire import pack
from server.collector import Failure, Roster
from server.phases.upload import Uploaded, collect_uploads
from server.pool import PoolWriter

Fault = Callable[[int, int], Any]  # of participant and attempt
SILENT = "silent"


class World:
    """Honest nodes with ``per_node`` participants each, some of which are faulty."""

    def __init__(self, per_node: int, total: int, faults: dict[int, Fault] | None = None) -> None:
        self.per_node, self.total, self.faults = per_node, total, faults or {}

    def hosted(self, node: int) -> list[int]:
        first = node * self.per_node
        return list(range(first, min(first + self.per_node, self.total)))

    def __call__(self, node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        asked, attempt = facts["participants"], facts["attempt"]
        hosted = self.hosted(node)
        shards: list[Shard] = []
        failed: list[dict[str, Any]] = []
        for i in hosted if asked is None else asked:
            what = self.faults[i](i, attempt) if i in self.faults else make_shard(i)
            if isinstance(what, Error):
                return [(0.2, what)]
            if isinstance(what, str):
                if what == SILENT:
                    return []
                failed.append({"id": i, "reason": what})
            elif what is not None:
                shards += what if isinstance(what, list) else [what]
        return [(0.1, answer(hosted, shards, failed=failed))]


def run(
    monkeypatch: pytest.MonkeyPatch, folder: Path, world: Any, nodes: int, **view: Any
) -> tuple[Uploaded, PoolWriter, FakeGrid]:
    exchange, grid = link(monkeypatch, world)
    seen = provider_view(**view)
    roster = Roster(tuple(range(nodes)), seen.participants + seen.outsiders)
    pool = PoolWriter(folder)
    seen_by_person = []  # as the console is told

    def progress(done: int) -> None:
        seen_by_person.append((done, pool.nbytes))

    uploaded = collect_uploads(exchange, roster, pool, seen, progress)
    assert seen_by_person == sorted(seen_by_person)
    assert seen_by_person[-1] == (len(pool), pool.nbytes)
    return uploaded, pool, grid


def wrong(**changes: Any) -> Fault:
    return lambda i, attempt: make_shard(i, **changes)


def garbled(i: int, attempt: int) -> Shard:
    shard = make_shard(i)
    shard.images[0, 0, 0, 0] ^= 1
    return shard


FAULTS: dict[str, tuple[Fault, str]] = {
    "raise": (lambda i, attempt: "ValueError", "ValueError"),
    "die": (lambda i, attempt: Error(1, "ray.exceptions.ActorDiedError"), "its process died"),
    "silent": (lambda i, attempt: SILENT, "no answer within the deadline of 5 s"),
    "nothing": (lambda i, attempt: None, "its node answered, but not for it"),
    "garble": (garbled, "digest does not match"),
    "shape": (wrong(images=np.zeros((3, 3, 4, 5), np.uint8)), r"images are \(3, 4, 5\)"),
    "duplicate": (wrong(ids=np.array([1, 2, 1])), "duplicate image ids"),
    "cipher": (wrong(cipher="none", params={}), "cipher none"),
    "labels": (wrong(labels=np.array([0, 1, 5])), "labels run from 0 to 5"),
}


@pytest.mark.parametrize("per_node", [1, 2, 4])
@pytest.mark.parametrize("kind", FAULTS)
def test_one_fault_takes_nobody_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, per_node: int
) -> None:
    fault, expected = FAULTS[kind]
    world = World(per_node, 5, {2: fault})
    nodes = -(-5 // per_node)
    uploaded, pool, _ = run(monkeypatch, tmp_path, world, nodes)
    assert pool.participants == (0, 1, 3)
    assert [(f.id, f.phase) for f in uploaded.failed] == [(2, "upload")]
    assert re.search(expected, uploaded.failed[0].reason)


@pytest.mark.parametrize("per_node", [1, 3])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_passing_fault_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, per_node: int
) -> None:
    fault, _ = FAULTS[kind]

    def first_time(i: int, attempt: int) -> Any:
        return fault(i, attempt) if attempt == 0 else make_shard(i)

    world = World(per_node, 5, {1: first_time, 3: first_time})
    uploaded, pool, grid = run(monkeypatch, tmp_path, world, -(-5 // per_node))
    assert pool.participants == (0, 1, 2, 3)
    assert uploaded.failed == []
    retries = [m.facts["participants"] for m in grid.sent if m.facts["attempt"] == 1]
    assert all(len(ids) == 1 for ids in retries)  # one by one


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kinds=st.lists(st.sampled_from([None, None, *FAULTS]), min_size=1, max_size=14),
    per_node=st.integers(1, 5),
)
def test_any_mixture_is_accounted_for_exactly(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str | None], per_node: int
) -> None:
    faults = {i: FAULTS[kind][0] for i, kind in enumerate(kinds) if kind}
    healthy = [i for i in range(len(kinds)) if i not in faults]
    world = World(per_node, len(kinds), faults)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if not healthy:
            with pytest.raises(QuorumError):
                run(
                    monkeypatch,
                    tmp_path_factory.mktemp("pool"),
                    world,
                    -(-len(kinds) // per_node),
                    participants=len(kinds),
                    outsiders=0,
                    quorum=1,
                )
            return
        uploaded, pool, _ = run(
            monkeypatch,
            tmp_path_factory.mktemp("pool"),
            world,
            -(-len(kinds) // per_node),
            participants=len(kinds),
            outsiders=0,
            quorum=1,
        )
    assert list(pool.participants) == healthy
    assert [f.id for f in uploaded.failed] == sorted(faults)


def test_too_few_uploads_say_who_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    faults = dict.fromkeys(range(3), FAULTS["garble"][0])
    with pytest.raises(QuorumError, match=r"only 1 of 4 .* asks for 2 .*participant 0: .*digest"):
        run(monkeypatch, tmp_path, World(1, 5, faults), 5)


def test_resuming_asks_only_for_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    early = PoolWriter(tmp_path)
    early.append([make_shard(0), make_shard(3)])
    early.close()
    uploaded, pool, grid = run(monkeypatch, tmp_path, World(2, 5), 3)
    assert (pool.participants, uploaded.resumed) == ((0, 1, 2, 3), 2)
    asked = [i for m in grid.sent for i in m.facts["participants"]]
    assert sorted(asked) == [1, 2]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_resumed_run_survives_garbage_in_place_of_the_roster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, attempts: int
) -> None:
    PoolWriter(tmp_path).append([make_shard(0), make_shard(1)])

    def world(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        return [(0.1, RecordDict())] if node == 1 else World(2, 5)(node, kind, facts)

    server = provider_view().server.model_copy(update={"attempts": attempts})
    uploaded, pool, _ = run(monkeypatch, tmp_path, world, 3, server=server)
    assert pool.participants == (0, 1)
    assert [f.id for f in uploaded.failed] == [2, 3]
    assert "no readable facts" in uploaded.failed[0].reason


@pytest.mark.parametrize("late", [5.4, 5.8, 6.2, 6.6, 7.0, 7.4, 9.0, 100.0])
def test_late_uploads_and_doubled_ones_count_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, late: float
) -> None:
    """Node 0 answers its first request after it was given up, and every request twice."""
    honest = World(2, 5)

    def world(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        ((_, content),) = honest(node, kind, facts)
        delay = late if node == 0 and facts["participants"] is None else 0.4
        return [(delay, content), (delay + 0.05, content)]

    uploaded, pool, _ = run(monkeypatch, tmp_path, world, 3)
    assert pool.participants == (0, 1, 2, 3)
    assert pool.rows == 12
    assert uploaded.failed == []


def test_ids_belong_to_the_node_that_named_them_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Node 2 claims everybody, late, and sends shards in their names."""
    honest = World(2, 5)

    def world(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        if node < 2:
            return honest(node, kind, facts)
        forged = [make_shard(i, nonce=bytes([i]) * 16) for i in range(4)]
        return [(3.0, answer(range(5), forged))]

    uploaded, pool, _ = run(monkeypatch, tmp_path, world, 3)
    assert uploaded.failed == []
    assert all(pool.manifest(i) == make_shard(i).manifest for i in range(4))


def test_a_shard_from_another_node_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Node 0 fails honestly; node 1 hosts 2 and 3 and sends a shard in the name of 0."""

    def world(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        if node == 0:
            return [(0.1, answer([0, 1], [make_shard(1)]))]
        return [(0.3, answer([2, 3], [make_shard(i) for i in (0, 2, 3)]))]

    uploaded, pool, _ = run(monkeypatch, tmp_path, world, 2)
    assert pool.participants == (1, 2, 3)
    assert [f.id for f in uploaded.failed] == [0]


def test_one_nonce_for_two_uploads_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    same = wrong(nonce=bytes(16))
    uploaded, pool, _ = run(monkeypatch, tmp_path, World(2, 5, {0: same, 1: same, 3: same}), 3)
    assert pool.participants == (0, 2)
    assert [f.id for f in uploaded.failed] == [1, 3]
    assert all("nonce" in f.reason for f in uploaded.failed)


deep: Any = "x"
for _ in range(900):
    deep = [deep]

HOSTILE_FACTS: list[dict[str, Any]] = [
    {"hosted": None},
    {"hosted": "0123"},
    {"hosted": [True, 1.0, "1", None, -1, 99, 10**30, [1], {}]},
    {"hosted": [1] * 1000},
    {"failed": 7},
    {"failed": [None, 7, {"id": 1}, {"id": [1]}, {"id": 1, "reason": 3}, {"reason": "x"}]},
    {"failed": [{"id": 1, "reason": deep}]},
    {"failed": [{"id": 1, "reason": "\x1b[2J\ud800\n" + "x" * 10**6}]},
    {"failed": [{"id": 0, "reason": "slander"}]},
    {"error": {"a": 1}, "hosted": []},
    {"error": "\x1b[31m" + "y" * 10**6, "hosted": []},
]


@pytest.mark.parametrize("facts", HOSTILE_FACTS, ids=range(len(HOSTILE_FACTS)))
def test_hostile_facts_hurt_only_their_sender(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, facts: dict[str, Any]
) -> None:
    def hostile(node: int, kind: str, asked: dict[str, Any]) -> Sequence[Reply]:
        if node != 1:
            return World(1, 5)(node, kind, asked)
        return [(0.1, pack({"hosted": [1], "failed": []} | facts))]

    uploaded, pool, _ = run(monkeypatch, tmp_path, hostile, 4)
    assert pool.participants == (0, 2, 3)
    (failure,) = uploaded.failed
    assert failure.id == 1
    assert len(failure.reason) <= 200
    assert failure.reason.isprintable()
    assert failure.reason


def _records() -> dict[str, RecordDict]:
    """Contents that are no upload, though they may look like one."""
    good = answer([1], [make_shard(1)])
    array = make_shard(1).images
    missing = answer([1], [make_shard(1)])
    del missing["shard.0"]
    renamed = answer([1], [make_shard(1)])
    renamed["shard.x"] = renamed.pop("shard.0")
    no_manifest = answer([1], [make_shard(1)])
    del no_manifest.config_records["facts"]["manifest.0"]
    binary = answer([1], [make_shard(1)])
    binary.config_records["facts"]["manifest.0"] = b"\xff\x00"
    foreign = answer([1], [make_shard(1)])
    foreign["shard.0"] = ArrayRecord({"images": Array(array)})
    return {
        "empty": RecordDict(),
        "no json": RecordDict({"facts": ConfigRecord({"json": "{"})}),
        "a list": RecordDict({"facts": ConfigRecord({"json": "[]"})}),
        "bytes": RecordDict({"facts": ConfigRecord({"json": b"\xff"})}),
        "numbers": RecordDict({"facts": ConfigRecord({"json": [1.0, 2.0]})}),
        "deep": RecordDict({"facts": ConfigRecord({"json": "[" * 10**5})}),
        "arrays as facts": RecordDict({"facts": good["shard.0"]}),
        "missing": missing,
        "renamed": renamed,
        "no manifest": no_manifest,
        "binary": binary,
        "foreign": foreign,
    }


@pytest.mark.parametrize("name", _records())
def test_garbage_that_arrives_as_success(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    content = _records()[name]

    def world(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        return [(0.1, content)] if node == 1 else World(1, 5)(node, kind, facts)

    uploaded, pool, _ = run(monkeypatch, tmp_path, world, 4)
    assert pool.participants == (0, 2, 3)
    assert [f.id for f in uploaded.failed] == [1]


@pytest.mark.usefixtures("quick_collections")
def test_replies_are_gone_before_the_next_are_pulled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Watched(RecordDict):
        pass

    delivered: list[weakref.ref[Watched]] = []
    pull = FakeGrid.pull_messages

    def watch(self: FakeGrid, ids: Any) -> Any:
        gc.collect()
        assert [ref for ref in delivered if ref() is not None] == []
        replies = pull(self, ids)
        delivered.extend(weakref.ref(r.content) for r in replies)
        return replies

    def world(node: int, kind: str, facts: dict[str, Any]) -> Sequence[Reply]:
        shard = garbled(node, 0) if node % 3 == 0 else make_shard(node)
        return [(0.1 * node, Watched(dict(answer([node], [shard]))))]

    monkeypatch.setattr(FakeGrid, "pull_messages", watch)
    _, pool, _ = run(monkeypatch, tmp_path, world, 12, participants=12, outsiders=0)
    assert len(pool) == 8
    assert len(delivered) == 12 + 4


def test_work_grows_with_the_participants_not_with_their_square(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Counted, not timed: calls made by the provider's code for each participant."""
    source = str(Path(server.__file__).parent)

    def calls(count: int) -> float:
        made = 0

        def profile(frame: FrameType, event: str, arg: object) -> None:
            nonlocal made
            made += event in ("call", "c_call") and frame.f_code.co_filename.startswith(source)

        sys.setprofile(profile)
        try:
            _, pool, _ = run(
                monkeypatch,
                tmp_path / str(count),
                World(1, count),
                count,
                participants=count,
                outsiders=0,
            )
        finally:
            sys.setprofile(None)
        assert len(pool) == count
        return made / count

    assert calls(400) < 1.2 * calls(100)


def test_failures_are_plain_values() -> None:
    assert vars(Failure(1, "upload", "why")) == {"id": 1, "phase": "upload", "reason": "why"}
