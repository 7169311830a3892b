"""A link to nodes that answer late, never, twice, with errors or garbage; on its own clock."""

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedenc.scenario import ProviderView
from fedenc.scenario.sections import Augmentation, Model, Server, Training
from fedenc.shard import Shard, seal
from fedenc.wire import pack, unpack_facts
from server.exchange import Exchange

SHAPE = (3, 4, 4)
Reply = tuple[float, RecordDict | Error]  # seconds until it comes, and what comes
Behaviour = Callable[[int, str, dict[str, Any]], Sequence[Reply]]  # of node, kind, facts


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeGrid:
    """As much of a Flower grid as an exchange needs."""

    def __init__(self, clock: Clock, behaviour: Behaviour) -> None:
        self.clock, self.behaviour = clock, behaviour
        self.sent: list[SimpleNamespace] = []  # node, kind, facts of every message
        self.waiting: list[tuple[float, str, Message]] = []
        self.most = 0  # requests in flight at once
        self.refuse: set[int] = set()  # nodes to which nothing can be sent
        self.open: set[str] = set()
        self.node_ids: Sequence[int] = ()  # that have registered

    def get_node_ids(self) -> Sequence[int]:
        return self.node_ids

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            node, kind = message.metadata.dst_node_id, message.metadata.message_type
            if node in self.refuse:
                continue
            key = f"message-{len(self.sent)}"
            message.metadata.__dict__["_message_id"] = key
            facts = unpack_facts(message.content)
            self.sent.append(SimpleNamespace(node=node, kind=kind, facts=facts, at=self.clock.now))
            self.open.add(key)
            self.most = max(self.most, len(self.open))
            for delay, what in self.behaviour(node, kind, facts):
                self.waiting.append((self.clock.now + delay, key, Message(what, reply_to=message)))
            ids.append(key)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        asked = set(message_ids)
        due = [w for w in self.waiting if w[0] <= self.clock.now and w[1] in asked]
        self.waiting = [w for w in self.waiting if w not in due]
        self.open -= {key for _, key, _ in due}
        return [message for _, _, message in sorted(due, key=lambda w: w[0])]


def link(
    monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, deadline: float = 5.0
) -> tuple[Exchange, FakeGrid]:
    """An exchange over a fake grid, both on a fake clock."""
    for name in ("_task_id", "_run_id", "_node_id"):  # which an engine sets before the app starts
        monkeypatch.setattr(TaskIdentity, name, 1)
    clock = Clock()
    monkeypatch.setattr("server.exchange.time", clock)
    grid = FakeGrid(clock, behaviour)
    return Exchange(grid, deadline, _began=clock.now), grid  # type: ignore[arg-type]


def make_shard(participant: int, rows: int = 3, purpose: str = "train", **changes: Any) -> Shard:
    """An honest shard, but for ``changes`` to what is sealed."""
    generator = np.random.Generator(np.random.Philox([participant, *purpose.encode()]))
    parts: dict[str, Any] = {
        "participant": participant,
        "purpose": purpose,
        "nonce": generator.bytes(16),
        "cipher": "none" if purpose == "plain" else "pixel",
        "params": {} if purpose == "plain" else {"color_shuffle": True},
        "images": generator.integers(0, 256, (rows, *SHAPE), dtype=np.uint8),
        "ids": np.arange(rows),
        "original": SHAPE,
        "labels": generator.integers(0, 5, rows) if purpose == "train" else None,
    }
    return seal(**(parts | changes))


def answer(hosted: Sequence[int], shards: Sequence[Shard] = (), **facts: Any) -> RecordDict:
    """What an honest node sends back."""
    return pack({"hosted": list(hosted), "failed": [], "scores": {}} | facts, shards)


def provider_view(**changes: Any) -> ProviderView:
    """The view of four participants and one outsider."""
    values: dict[str, Any] = {
        "scenario_hash": "0" * 64,
        "seed": 0,
        "participants": 4,
        "outsiders": 1,
        "classes": ("a", "b", "c", "d", "e"),
        "shape": SHAPE,
        "cipher": "pixel",
        "cipher_params": {"color_shuffle": True},
        "plain_uploads": False,
        "views": 1,
        "augmentation": Augmentation(),
        "flip": False,
        "model": Model(),
        "training": Training(),
        "conditions": ("plain", "encrypted"),
        "server": Server(deadline=5.0),
        "quorum": 2,
    }
    return ProviderView(**(values | changes))
