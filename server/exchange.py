"""Messages out, replies in: bounded in flight, patient with the slow, deaf to the lost.

Flower's grid may return a reply late, as an error, or never. Requests go out through a window, so
that neither the link's memory nor its queues grow with the number of nodes. Requests are given up
when *nobody* has answered for ``deadline`` seconds: nodes share client processes in a simulation,
so one that sleeps holds up others that are well, and they must not be blamed for the wait. For the
same reason the time that processes take to start is measured and added: one that dies starts anew.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

_POLL = 0.02  # seconds between looks at an idle link
_START_TIMEOUT = 120.0  # seconds, at least, until the first answer of all
_STARTS = 3  # process starts that may lie between two answers
_WINDOW = (4, 64)  # requests in flight: at least, at most
_IN_FLIGHT = 128 << 20  # bytes of replies that may wait at once, judged by the largest one seen


@dataclass(frozen=True)
class Request:
    """One message to one node, and the participants it concerns (None: all that it hosts)."""

    node: int
    kind: str  # Flower message type, such as "query.upload"
    content: RecordDict
    participants: tuple[int, ...] | None


@dataclass(frozen=True)
class Answer:
    """What came of a request: content, or the reason why there is none."""

    request: Request
    content: RecordDict | None
    reason: str = ""
    seconds: float = 0.0  # between request and answer


@dataclass
class Exchange:
    """Sends requests through a grid and yields an answer for each; late ones too, if they come."""

    grid: Grid
    deadline: float
    _sent: dict[str, tuple[Request, float]] = field(default_factory=dict)
    _given_up: dict[str, tuple[Request, float]] = field(default_factory=dict)
    _largest: int = 0
    _began: float = field(default_factory=time.monotonic)
    _startup: float | None = None  # seconds until the first answer of all

    def ask(self, requests: Iterable[Request]) -> Iterator[list[Answer]]:
        """Yield answers in batches as they arrive, until every request has one or is given up.

        Answers to requests given up earlier are passed on as well when they turn up. The caller
        should drop a batch before it takes the next.
        """
        queue = iter(requests)
        last = time.monotonic()
        exhausted = False
        while True:
            while not exhausted and len(self._sent) < self._window():
                if (request := next(queue, None)) is None:
                    exhausted = True
                else:
                    self._push(request)
                    last = time.monotonic()
            if exhausted and not self._sent:
                return
            answers = self._pull()
            if answers:
                last = time.monotonic()
                yield answers
            elif time.monotonic() - last > self._patience():
                yield self._give_up()
                last = time.monotonic()
            else:
                time.sleep(_POLL)

    def _patience(self) -> float:
        """Seconds without an answer from anybody after which none is expected any more."""
        if self._startup is None:
            return max(self.deadline, _START_TIMEOUT)
        return self.deadline + _STARTS * self._startup

    def _window(self) -> int:
        least, most = _WINDOW
        if not self._largest:
            return least
        return max(least, min(most, _IN_FLIGHT // self._largest))

    def _push(self, request: Request) -> None:
        message = Message(request.content, request.node, request.kind)
        ids = list(self.grid.push_messages([message]))
        key = ids[0] if ids and ids[0] else f"unsent-{len(self._sent)}-{time.monotonic_ns()}"
        self._sent[key] = (request, time.monotonic())

    def _pull(self) -> list[Answer]:
        known = self._sent | self._given_up
        answers = []
        for reply in self.grid.pull_messages(k for k in known if not k.startswith("unsent-")):
            key = reply.metadata.reply_to_message_id
            request, since = known[key]
            self._sent.pop(key, None)
            self._given_up.pop(key, None)
            seconds = time.monotonic() - since
            if self._startup is None:
                self._startup = time.monotonic() - self._began
            if reply.has_error():
                answers.append(Answer(request, None, _reason(reply.error), seconds))
            else:
                self._largest = max(self._largest, _size(reply.content))
                answers.append(Answer(request, reply.content, "", seconds))
        return answers

    def _give_up(self) -> list[Answer]:
        reason = f"no answer within the deadline of {self.deadline:g} s"
        answers = [
            Answer(request, None, reason, time.monotonic() - since)
            for request, since in self._sent.values()
        ]
        self._given_up |= self._sent
        self._sent = {}
        return answers


def _reason(error: Error) -> str:
    """A node's failure in few words. In a simulation Ray reports a dead process at length."""
    text = " ".join(str(error.reason or f"error code {error.code}").split())
    if "ray.exceptions.Actor" in text or "ray.exceptions.WorkerCrashed" in text:
        return "its process died"
    return f"its node failed: {text[:200]}"


def _size(content: RecordDict) -> int:
    """Bytes of the arrays in a message, at least one."""
    arrays = (a for record in content.array_records.values() for a in record.values())
    return max(1, sum(len(array.data) for array in arrays))
