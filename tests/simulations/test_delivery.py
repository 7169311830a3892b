"""Delivery of messages to simulated nodes: at once, each once, without a look at idle nodes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from types import SimpleNamespace
from typing import Any

import pytest

from simulations.delivery import deliver

SOON = 10.0  # seconds: far more than a delivery takes


class State:
    """As much of Flower's state as a delivery needs; node 0 is unknown to it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.looks = 0

    def store_message_ins(self, message: Any) -> str | None:
        if not message.metadata.dst_node_id:
            return None
        self.messages.append(message)
        return "id"

    def get_message_ins(self, node_id: int, limit: int | None) -> list[Any]:
        self.looks += 1
        found = [m for m in self.messages if m.metadata.dst_node_id == node_id][:limit]
        self.messages = [m for m in self.messages if m not in found]
        return found


def message(node: int, number: int) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(dst_node_id=node), number=number)


@contextmanager
def delivering(state: Any, nodes: int) -> Iterator[Queue[Any]]:
    queue: Queue[Any] = Queue()
    end = threading.Event()
    arguments = (state, queue, range(1, nodes + 1), end)
    thread = threading.Thread(target=deliver, args=arguments)
    thread.start()
    try:
        yield queue
    finally:
        end.set()
        thread.join(SOON)
        assert not thread.is_alive()


def wait_for(state: State, looks: int) -> None:
    end = time.monotonic() + SOON
    while state.looks < looks and time.monotonic() < end:
        time.sleep(0.01)


def test_every_message_is_delivered_once_whenever_it_was_sent() -> None:
    state = State()
    for number, node in enumerate([2, 2, 1]):
        state.store_message_ins(message(node, number))
    with delivering(state, nodes=3) as queue:
        wait_for(state, looks=3)
        for number, node in enumerate([3, 1, 1], start=3):
            assert state.store_message_ins(message(node, number)) == "id"
        found = [queue.get(timeout=SOON) for _ in range(6)]
        assert sorted(m.number for m in found) == list(range(6))
        with pytest.raises(Empty):
            queue.get(timeout=0.1)


def test_idle_nodes_cost_nothing() -> None:
    state = State()
    with delivering(state, nodes=100) as queue:
        wait_for(state, looks=100)  # for what was sent before
        assert state.store_message_ins(message(0, -1)) is None
        for number in range(20):
            state.store_message_ins(message(7, number))
            assert queue.get(timeout=SOON).number == number
        time.sleep(0.2)
    assert state.looks == 100 + 20
