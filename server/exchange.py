"""Messages out, replies in: few at a time, with patience, but not for ever.

Flower's grid may return a reply late, as an error, or never. Requests go out through a window, so
that neither the link's memory nor its queues grow with the number of nodes. Requests are given up
when *nobody* has answered for ``deadline`` seconds: nodes share client processes in a simulation,
so one that sleeps holds up others that are well, and they must not be blamed for the wait. For the
same reason the time that processes take to start is measured and added: one that dies starts anew.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

_POLL = (0.001, 0.02)  # seconds between looks at an idle link, at least and at most
_START_TIMEOUT = 120.0  # seconds, at least, until the first answer of all
_REST = 10.0  # seconds, at most, to wait for a process that died
_STARTS = 3  # process starts that may lie between two answers
_WINDOW = (4, 64)  # requests in flight where every node works for itself: at least, at most
_IN_FLIGHT = 48 << 20  # bytes of replies that may wait at once, judged by the largest one seen
# What Flower raises where a reply's bytes are no message; a lost link raises other errors.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, DecodeError)


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
    """Sends requests through a grid and yields an answer for each; late ones too, if they come.

    Attributes:
        deadline: seconds without any answer after which what was sent is given up.
        window: requests in flight, at least (however large replies are) and at most.
    """

    grid: Grid
    deadline: float
    window: tuple[int, int] = _WINDOW  # requests in flight: at least, and at most
    _sent: dict[str, tuple[Request, float]] = field(default_factory=dict)
    _given_up: dict[str, tuple[Request, float]] = field(default_factory=dict)
    _unsent: list[Answer] = field(default_factory=list)
    _one_by_one: bool = False  # whether replies are pulled singly, since one was no message
    _largest: int = 0
    _began: float = field(default_factory=time.monotonic)
    _startup: float | None = None  # seconds until the first answer of all
    _node_failed: bool = False  # whether a node has failed since the last rest

    def ask(self, requests: Iterable[Request]) -> Iterator[list[Answer]]:
        """Yield answers in batches as they arrive, until every request has one or is given up.

        Answers to requests given up earlier are passed on as well when they turn up. The caller
        should drop a batch before it takes the next.
        """
        queue = iter(requests)
        last = time.monotonic()
        exhausted = False
        while True:
            while not exhausted and self._waiting < self._window():
                if (request := next(queue, None)) is None:
                    exhausted = True
                else:
                    self._push(request)
                    last = time.monotonic()
            if exhausted and not self._waiting:
                return
            answers = self._pull()
            if answers:
                last = time.monotonic()
                yield answers
            elif time.monotonic() - last > self._patience():
                yield self._give_up()
                if self._startup is None:  # not one answer ever: the rest need not be tried
                    yield [Answer(r, None, "no node has answered anything") for r in queue]
                last = time.monotonic()
            else:  # look soon where answers come often
                time.sleep(max(_POLL[0], min(_POLL[1], (time.monotonic() - last) / 2)))

    def rest(self) -> None:
        """Where a node has failed, give its process the time that it takes to start: while Ray
        brings it back, messages to it fail at once, and would cost others on it their attempts."""
        if self._node_failed:
            time.sleep(min(self._startup or 0.0, _REST))
        self._node_failed = False

    @property
    def _waiting(self) -> int:
        return len(self._sent) + len(self._unsent)

    def _patience(self) -> float:
        """Seconds without an answer from anybody after which none is expected any more."""
        if self._startup is None:
            return max(self.deadline, _START_TIMEOUT)
        return self.deadline + _STARTS * self._startup

    def _window(self) -> int:
        least, most = self.window
        if not self._largest:
            return least
        return max(least, min(most, _IN_FLIGHT // self._largest))

    def _push(self, request: Request) -> None:
        message = Message(request.content, request.node, request.kind)
        ids = list(self.grid.push_messages([message]))
        if ids and ids[0]:
            self._sent[ids[0]] = (request, time.monotonic())
        else:
            self._unsent.append(Answer(request, None, "the link did not take the request"))

    def _pull(self) -> list[Answer]:
        answers, self._unsent = self._unsent, []
        known = self._sent | self._given_up
        if self._one_by_one:
            for key in known:
                answers += self._read([key])
        else:
            answers += self._read(list(known))
        return answers

    def _read(self, keys: list[str]) -> list[Answer]:
        """Whatever has come for the messages of these ids."""
        try:
            replies = list(self.grid.pull_messages(keys))
        except _MALFORMED as error:
            if not self._one_by_one:  # whose it is shows, and harms no other, from now on
                self._one_by_one = True
                return []
            taken = self._take(keys[0])
            reason = f"unreadable answer: {type(error).__name__}"
            return [Answer(taken[0], None, reason)] if taken else []
        return [answer for reply in replies if (answer := self._answer(reply))]

    def _answer(self, reply: Message) -> Answer | None:
        """A reply as an answer; None if it replies to nothing that waits for one."""
        if (taken := self._take(reply.metadata.reply_to_message_id)) is None:
            return None
        request, since = taken
        seconds = time.monotonic() - since
        if self._startup is None:
            self._startup = time.monotonic() - self._began
        if reply.has_error():
            self._node_failed = True
            return Answer(request, None, _reason(reply.error), seconds)
        self._largest = max(self._largest, _size(reply.content))
        return Answer(request, reply.content, "", seconds)

    def _take(self, key: str) -> tuple[Request, float] | None:
        """Take a request off the books; None if it is not on them."""
        return self._sent.pop(key, None) or self._given_up.pop(key, None)

    def _give_up(self) -> list[Answer]:
        reason = f"no answer within the deadline of {self.deadline:g} s"
        answers = [
            Answer(request, None, reason, time.monotonic() - since)
            for request, since in self._sent.values()
        ]
        self._given_up |= self._sent
        self._sent = {}
        return answers


def window_of(processes: int) -> tuple[int, int]:
    """The window for as many processes that share all nodes' work, as in a simulation: one request
    for each, and the next where replies are not too large. More would only wait."""
    return processes, 2 * processes


def _reason(error: Error) -> str:
    """A node's failure in few words. In a simulation Ray reports a dead process at length."""
    text = " ".join(str(error.reason or f"error code {error.code}").split())
    if "ray.exceptions.Actor" in text or "ray.exceptions.WorkerCrashed" in text:
        return "its process died"
    return f"its node failed: {text[:200]}"


def _size(content: RecordDict) -> int:
    """Bytes of the arrays in a message, at least one."""
    records = (record for record in content.values() if isinstance(record, ArrayRecord))
    return max(1, sum(len(array.data) for record in records for array in record.values()))
