"""The participant's Flower app: unpack, call the participant, reply.

No handler raises an exception. If a participant fails, the reply names it and the reason, and the
other participants of the same node are still served.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.faults import Fault
from clients.participant import Participant, Scores
from fedenc.errors import FedencError
from fedenc.scenario.sections import Condition
from fedenc.shard import Shard
from fedenc.wire import pack, unpack_arrays, unpack_facts


class Host(Protocol):
    """What knows the participants of a node."""

    @property
    def faults(self) -> Mapping[int, Fault]:
        """Participants that misbehave on purpose."""

    def hosted_by(self, node: int) -> tuple[int, ...]:
        """Ids of the participants on a node."""

    def participant(self, i: int) -> Participant:
        """One participant, ready to act."""


Work = Callable[[Host, int, Mapping[str, Any], RecordDict, "_Reply"], None]


class _Reply:
    """What goes back: shards, facts by participant, and who failed."""

    def __init__(self, hosted: tuple[int, ...]) -> None:
        self.facts: dict[str, Any] = {
            "hosted": list(hosted),
            "failed": [],
            "nothing": [],  # participants that have nothing to ask
            "scores": {},
        }
        self.shards: list[Shard] = []

    def failed(self, i: int, error: BaseException) -> None:
        self.facts["failed"].append({"id": i, "reason": _public(error)})

    def message(self, request: Message) -> Message:
        return Message(pack(self.facts, self.shards), reply_to=request)


Note = Callable[[int | None, Exception], None]


def make(host_of: Callable[[Context], Host], note: Note) -> ClientApp:
    """The ClientApp for the hosts that ``host_of`` finds.

    Args:
        host_of: finds the host of a node from Flower's context (node and run configuration); it is
            called for every message, so it must be cheap when called again for the same run.
        note: records what a participant raised (None: what concerns the whole node), on its own
            side only, since a trace may quote its data.
    """
    app = ClientApp()
    for action, work in (("upload", _upload), ("queries", _queries), ("score", _score)):
        app.query(action)(_handler(host_of, note, work))
    return app


def _handler(
    host_of: Callable[[Context], Host], note: Note, work: Work
) -> Callable[[Message, Context], Message]:
    def handle(message: Message, context: Context) -> Message:
        reply = _Reply(())
        try:
            host = host_of(context)
            hosted = host.hosted_by(int(context.node_config.get("partition-id", 0)))
            reply = _Reply(hosted)
            facts = unpack_facts(message.content)
            for i in _asked(facts, hosted):
                try:
                    work(host, i, facts, message.content, reply)
                except Exception as error:
                    reply.failed(i, error)
                    _try_to(note, i, error)
        except Exception as error:  # it concerns the node itself: everybody on it fails
            for i in reply.facts["hosted"]:
                reply.failed(i, error)
            reply.facts["error"] = _public(error)
            _try_to(note, None, error)
        return reply.message(message)

    return handle


def _try_to(note: Note, i: int | None, error: Exception) -> None:
    """A note that cannot be written must not fail healthy participants."""
    with contextlib.suppress(Exception):
        note(i, error)


def _public(error: BaseException) -> str:
    """What the provider is told of an error. Only our own messages are known to be harmless; others
    may quote data or a key."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, FedencError) else name


def _asked(facts: Mapping[str, Any], hosted: tuple[int, ...]) -> Iterator[int]:
    """The participants on this node that a request is for."""
    wanted = facts.get("participants")
    return (i for i in hosted if wanted is None or i in wanted)


def _upload(
    host: Host, i: int, facts: Mapping[str, Any], content: RecordDict, reply: _Reply
) -> None:
    participant = host.participant(i)
    if not len(participant.train.labels):
        return  # an outsider has nothing to upload
    fault = host.faults.get(i)
    if fault is None or not fault.strikes(int(facts.get("attempt", 0))):
        reply.shards.append(participant.upload())
    elif not fault.before():
        reply.shards.append(fault.spoil(participant.upload()))


def _queries(
    host: Host, i: int, facts: Mapping[str, Any], content: RecordDict, reply: _Reply
) -> None:
    conditions: tuple[Condition, ...] = tuple(facts["conditions"])
    if shards := host.participant(i).queries(conditions):
        reply.shards.extend(shards)
    else:
        reply.facts["nothing"].append(i)


def _score(
    host: Host, i: int, facts: Mapping[str, Any], content: RecordDict, reply: _Reply
) -> None:
    arrays = unpack_arrays(cast("ArrayRecord", content["scores"]))
    rows: Mapping[Condition, tuple[int, int]] = facts["rows"][str(i)]
    answers: dict[Condition, Scores] = {c: arrays[c][slice(*own)] for c, own in rows.items()}
    reply.facts["scores"][str(i)] = host.participant(i).score(answers).to_json()
