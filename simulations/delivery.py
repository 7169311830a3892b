"""Hands messages to Flower's simulated nodes as soon as they are sent.

Flower looks ten times a second, once for every node, through all messages that wait: the driver's
time grows with nodes times messages, and a message waits for the next look. Here every message says
itself whom it is for.
"""

from collections.abc import Iterable
from queue import Empty, Queue
from threading import Event

from flwr.app import Message
from flwr.server.superlink.linkstate import LinkState

_PATIENCE = 0.5  # seconds between looks whether the simulation ends


def deliver(state: LinkState, queue: Queue[Message], nodes: Iterable[int], end: Event) -> None:
    """Put messages from a simulation's state in the queue of its workers, until it ends.

    Stands in for ``flwr.server.superlink.fleet.vce.vce_api.add_messages_to_queue``.

    Args:
        nodes: that have registered; messages may wait for them already.
    """
    addressed: Queue[int] = Queue()  # nodes for which something has come
    store = state.store_message_ins

    def noted(message: Message) -> str | None:
        if (stored := store(message)) is not None:
            addressed.put(message.metadata.dst_node_id)
        return stored

    state.store_message_ins = noted  # type: ignore[method-assign]
    for node in nodes:
        addressed.put(node)
    while not end.is_set():
        try:
            node = addressed.get(timeout=_PATIENCE)
        except Empty:
            continue
        for message in state.get_message_ins(node_id=node, limit=None):
            queue.put(message)
