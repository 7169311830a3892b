"""The participant's app: one participant's failure is its own, and tells nothing it should not."""

import time
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients import app as client_app
from clients.faults import Fault, InjectedFaultError
from clients.participant import Labelled, Participant
from fedenc import ciphers
from fedenc.errors import CipherError, ShardError
from fedenc.keys import KeyRing
from fedenc.protection import Keyed
from fedenc.shard import Rules, Shard, check
from fedenc.wire import pack, pack_arrays, unpack_facts, unpack_shards

SECRET = "0011223344"
RULES = Rules(9, (3, 4, 4), 3, 1, (("pixel", {"color_shuffle": True}), ("none", {})))


class Node:
    """A host of participants 3, 4 and 5."""

    def __init__(self, faults: dict[int, Fault] | None = None) -> None:
        self.faults = faults or {}
        self.broken: dict[int, Exception] = {}

    def hosted_by(self, node: int) -> tuple[int, ...]:
        return (3, 4, 5)

    def participant(self, i: int) -> Participant:
        if i in self.broken:
            raise self.broken[i]
        generator = np.random.Generator(np.random.Philox(i))
        images = generator.integers(0, 256, (4, 3, 4, 4), dtype=np.uint8)
        mine = Labelled(images, np.arange(4) % 3)
        held = {} if i == 5 else {"plain": mine, "encrypted": mine}
        rows = slice(0, 0) if i == 5 else slice(None)
        ring = KeyRing(bytes([i]) * 32, i)
        owned = Labelled(images[rows], mine.labels[rows])
        return Participant(i, owned, held, ring, Keyed(ciphers.make("pixel"), ring, "image"))  # type: ignore[arg-type]


def ask(
    host: Any, action: str, content: RecordDict, note: client_app.Note = lambda i, error: None
) -> RecordDict:
    message = Message(content, 1, f"query.{action}")
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {})

    def host_of(context: Context) -> Any:
        if isinstance(host, Exception):
            raise host
        return host

    return client_app.make(host_of, note)(message, context).content


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def shards(content: RecordDict) -> dict[int, Shard]:
    found = list(unpack_shards(content))
    assert all(isinstance(s, Shard) for s in found)
    return {s.participant: s for s in found if isinstance(s, Shard)}


def test_upload_of_all_or_of_those_asked() -> None:
    everybody = ask(Node(), "upload", pack({"participants": None, "attempt": 0}))
    assert set(shards(everybody)) == {3, 4}  # an outsider has nothing to upload
    assert unpack_facts(everybody)["hosted"] == [3, 4, 5]
    for shard in shards(everybody).values():
        check(shard, RULES, purpose="train")
    one = ask(Node(), "upload", pack({"participants": [4, 77], "attempt": 1}))
    assert shards(one)[4].manifest == shards(everybody)[4].manifest
    assert set(shards(ask(Node(), "upload", pack({"participants": [], "attempt": 0})))) == set()


def test_one_failure_is_its_own() -> None:
    node = Node()
    node.broken[3] = RuntimeError(f"key {SECRET}")
    noted: list[tuple[int | None, Exception]] = []

    def note(i: int | None, error: Exception) -> None:
        noted.append((i, error))
        raise OSError("no space left")

    content = ask(node, "upload", pack({"participants": None, "attempt": 0}), note)
    assert set(shards(content)) == {4}, "those who are well, whatever becomes of the note"
    assert unpack_facts(content)["failed"] == [{"id": 3, "reason": "RuntimeError"}]
    assert noted == [(3, node.broken[3])], "its own side knows all of it"
    ask(broken := ValueError("the node's own"), "upload", pack({"participants": None}), note)
    assert noted[-1] == (None, broken)


def test_only_our_own_words_are_passed_on() -> None:
    """Anybody else's message may quote a key or a pixel."""
    node = Node()
    node.broken[3] = CipherError("colour shuffling needs three channels")
    node.broken[4] = ValueError(SECRET)
    content = ask(node, "upload", pack({"participants": None, "attempt": 0}))
    reasons = [f["reason"] for f in unpack_facts(content)["failed"]]
    assert reasons == ["CipherError: colour shuffling needs three channels", "ValueError"]
    node_fails = ask(ValueError(SECRET), "upload", pack({"participants": None, "attempt": 0}))
    assert unpack_facts(node_fails)["error"] == "ValueError"
    assert SECRET not in str(node_fails) + str(content)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        pack({}),
        pack({"participants": 3}),
        pack({"participants": None, "attempt": "x", "conditions": 5}),
    ],
)
@pytest.mark.parametrize("action", ["upload", "queries", "score"])
def test_a_bad_request_is_answered(action: str, content: RecordDict) -> None:
    faulty = Node({3: Fault("raise", True, 1.0), 4: Fault("raise", True, 1.0)})
    reply = unpack_facts(ask(faulty, action, content))
    assert reply["hosted"] == [3, 4, 5]
    if action == "score":
        assert [f["id"] for f in reply["failed"]] == [3, 4, 5]


def test_queries_and_who_has_none() -> None:
    content = ask(
        Node(), "queries", pack({"participants": None, "conditions": ["plain", "encrypted"]})
    )
    found = [s for s in unpack_shards(content) if isinstance(s, Shard)]
    assert [(s.participant, s.manifest.purpose) for s in found] == [
        (3, "plain"), (3, "encrypted"), (4, "plain"), (4, "encrypted"),
    ]  # fmt: skip
    assert all(s.labels is None for s in found)
    assert unpack_facts(content)["nothing"] == [5]


def test_scores_are_counted_for_each() -> None:
    rows = {"3": {"plain": (0, 4)}, "4": {"plain": (4, 7)}}
    content = pack({"participants": [3, 4], "rows": rows})
    right = Node().participant(3)
    order = right._orders["plain"]
    scores = np.eye(3, dtype=np.float32)[right.held_out["plain"].labels[order]]
    too_few = np.ones((3, 3), np.float32)
    content["scores"] = pack_arrays({"plain": np.concatenate([scores, too_few])})
    reply = unpack_facts(ask(Node(), "score", content))
    assert reply["scores"]["3"] == {
        "correct": {"plain": 4}, "total": {"plain": 4}, "agree": None, "pairs": None, "both": None,
    }  # fmt: skip
    assert [f["id"] for f in reply["failed"]] == [4]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("garble", "digest"), ("wrong_shape", r"images are \(3, 4, 3\)"), ("duplicate", "duplicate")],
)
def test_spoiled_shards_are_refused_for_what_is_wrong(kind: Any, problem: str) -> None:
    node = Node({3: Fault(kind, False, 1.0)})
    found = shards(ask(node, "upload", pack({"participants": None, "attempt": 3})))
    check(found[4], RULES, purpose="train")
    with pytest.raises(ShardError, match=problem) as error:
        check(found[3], RULES, purpose="train")
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("kind", ["garble", "wrong_shape", "duplicate"])
def test_a_fault_shows_even_in_a_single_image(kind: Any) -> None:
    whole = Node().participant(3)
    single = Participant(
        3, Labelled(whole.train.images[:1], whole.train.labels[:1]), {}, whole.ring,
        whole.protection,
    )  # fmt: skip
    with pytest.raises(ShardError):
        check(Fault(kind, False, 1.0).spoil(single.upload()), RULES, purpose="train")


def test_a_transient_fault_strikes_once() -> None:
    node = Node({3: Fault("raise", True, 1.0)})
    first = ask(node, "upload", pack({"participants": [3], "attempt": 0}))
    assert unpack_facts(first)["failed"] == [{"id": 3, "reason": "InjectedFaultError"}]
    assert set(shards(ask(node, "upload", pack({"participants": [3], "attempt": 1})))) == {3}


def test_before_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr("os.kill", lambda *args: killed.append(args))
    assert Fault("silent", False, 2.5).before()
    assert slept == [2.5]
    Fault("die", False, 1.0).before()
    assert killed[0][1] == 9
    with pytest.raises(InjectedFaultError):
        Fault("raise", False, 1.0).before()
    assert not Fault("garble", False, 1.0).before()


def test_nothing_of_keys_or_plain_images_is_in_what_is_sent() -> None:
    content = ask(Node(), "upload", pack({"participants": None, "attempt": 0}))
    sent = b"".join(a.data for r in content.array_records.values() for a in r.values())
    sent += str(content.config_records).encode()
    for i in (3, 4):
        owner = Node().participant(i)
        assert bytes([i]) * 32 not in sent
        assert (bytes([i]) * 32).hex().encode() not in sent
        plain = owner.train.images.tobytes()
        assert not any(plain[at : at + 16] in sent for at in range(len(plain) - 16))
