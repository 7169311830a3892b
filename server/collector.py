"""Asks participants, checks what they answer, asks again, and keeps exact accounts.

The same bookkeeping serves all three phases (upload, queries, score). A participant is the unit:
nodes that fail as a whole are asked again participant by participant, so that one that dies or
sleeps does not take its neighbours with it.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flwr.app import RecordDict

from fedenc.errors import ShardError
from fedenc.shard import Shard
from fedenc.wire import pack, unpack_facts, unpack_shards
from server.exchange import Answer, Exchange, Request

UPLOAD, QUERIES, SCORE = "query.upload", "query.queries", "query.score"
_MAX_REASON = 200  # characters kept of a reason: it may quote what anyone sent


@dataclass(frozen=True)
class Failure:
    """A participant that did not deliver, in which phase, and why."""

    id: int
    phase: str
    reason: str


@dataclass
class Roster:
    """Which node hosts which participants, as far as nodes have told."""

    nodes: tuple[int, ...]
    total: int  # ids 0..total-1 may be claimed
    hosted: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _owner: dict[int, int] = field(default_factory=dict)

    def learn(self, node: int, claimed: object) -> None:
        """Believe a node about ids that nobody claimed before; ignore the rest."""
        if not isinstance(claimed, list):
            return
        ids = dict.fromkeys(
            i
            for i in claimed
            if type(i) is int and 0 <= i < self.total and self._owner.setdefault(i, node) == node
        )
        self.hosted[node] = tuple(ids)

    def node_of(self, participant: int) -> int | None:
        """The node that hosts a participant, if one said so."""
        return self._owner.get(participant)

    def unknown(self) -> tuple[int, ...]:
        """Nodes that have not said whom they host."""
        return tuple(node for node in self.nodes if node not in self.hosted)


Verdict = tuple[set[int], dict[int, str]]  # ids served; why the part of others was refused


class Phase(ABC):
    """What one phase asks for, what it accepts, and its accounts.

    Attributes:
        kind: Flower message type.
        roster: which node hosts whom.
        wanted: ids still to be served.
        reasons: why a participant was not served, the last time it was tried.
        unassigned: the reason for participants that no node is known to host.
    """

    kind: ClassVar[str]

    def __init__(self, roster: Roster, wanted: Iterable[int]) -> None:
        self.roster, self.wanted = roster, set(wanted)
        self.reasons: dict[int, str] = {}
        self.unassigned = "its node never answered"

    @abstractmethod
    def request(self, ids: tuple[int, ...] | None, attempt: int) -> RecordDict:
        """The content of a request for these participants (None: all that the node hosts)."""

    @abstractmethod
    def accept(self, answer: Answer, facts: Mapping[str, Any]) -> Verdict:
        """Take what is good of an answer with content, whose facts these are.

        It must copy what it keeps.
        """

    def finish(self) -> None:  # noqa: B027  (most phases have nothing under way)
        """Wait for what earlier answers have set going. Called when no more are expected."""

    @property
    def name(self) -> str:
        """The phase as it is called in results: ``upload``, ``queries`` or ``score``."""
        return self.kind.partition(".")[2]

    def failures(self) -> list[Failure]:
        """Participants still wanting, with the last reason known, by id."""
        return [
            Failure(i, self.name, self.reasons.get(i, self.unassigned)) for i in sorted(self.wanted)
        ]

    def concerned(self, answer: Answer) -> Sequence[int]:
        """The participants that an answer is about: those asked, or all that its node hosts."""
        if answer.request.participants is not None:
            return answer.request.participants
        return self.roster.hosted.get(answer.request.node, ())

    def judge_shards(
        self, answer: Answer, judge: Callable[[Shard], None], what: str
    ) -> dict[int, str]:
        """Hand every shard that its host sent to ``judge``, which raises ShardError to refuse it.

        Returns:
            Reasons of the participants whose ``what`` was refused.
        """
        assert answer.content is not None
        refused: dict[int, str] = {}
        for shard in unpack_shards(answer.content):
            if isinstance(shard, ShardError):
                refused |= dict.fromkeys(self.concerned(answer), f"{what} refused: {shard}")
                continue
            try:
                if self.roster.node_of(shard.participant) != answer.request.node:
                    raise ShardError("sent by a node that does not host it")
                judge(shard)
            except ShardError as error:
                refused[shard.participant] = f"{what} refused: {error}"
        return refused


def asking(ids: tuple[int, ...] | None, attempt: int, **facts: Any) -> RecordDict:
    """A request's content: the participants asked (None: all that the node hosts), and facts."""
    return pack({"participants": None if ids is None else list(ids), "attempt": attempt} | facts)


def ask_roster(exchange: Exchange, roster: Roster) -> None:
    """Ask nodes that have not said so whom they host; they send nothing else."""
    requests = [Request(node, UPLOAD, asking((), 0), ()) for node in roster.unknown()]
    for answers in exchange.ask(requests):
        while answers:
            with contextlib.suppress(ShardError):  # garbage tells nothing, as silence does
                _learn(answers.pop(0), roster)


def collect(
    exchange: Exchange,
    phase: Phase,
    *,
    attempts: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Failure]:
    """Run one phase until everybody wanted is served or has been asked ``attempts`` times.

    Args:
        progress: called with the number of participants served so far.

    Returns:
        The participants that were not served.
    """
    total = len(phase.wanted)
    for attempt in range(attempts):
        if attempt:
            exchange.rest()
        if attempt and phase.roster.unknown():
            ask_roster(exchange, phase.roster)
        for answers in exchange.ask(_requests(phase, attempt)):
            while answers:  # replies are large: let go of each as soon as it is recorded
                _record(answers.pop(0), phase)
            progress(total - len(phase.wanted))
        if not phase.wanted:
            break
    phase.finish()
    return phase.failures()


def _requests(phase: Phase, attempt: int) -> Iterator[Request]:
    """First one request a node, later one a participant."""
    roster = phase.roster
    if attempt == 0:
        unassigned = any(roster.node_of(i) is None for i in phase.wanted)
        for node in roster.nodes:
            hosted = roster.hosted.get(node)
            if hosted is None and unassigned:
                yield Request(node, phase.kind, phase.request(None, attempt), None)
            elif ids := tuple(i for i in hosted or () if i in phase.wanted):
                yield Request(node, phase.kind, phase.request(ids, attempt), ids)
    else:
        for i in sorted(phase.wanted):
            # A late answer may have served it by the time that its turn comes.
            if (owner := roster.node_of(i)) is not None and i in phase.wanted:
                yield Request(owner, phase.kind, phase.request((i,), attempt), (i,))


def _learn(answer: Answer, roster: Roster) -> Mapping[str, Any] | None:
    """The facts of an answer, if it has any, and whom its node hosts."""
    if answer.content is None:
        return None
    facts = unpack_facts(answer.content)
    if facts.get("hosted") or "error" not in facts:  # a node in trouble may not know its own
        roster.learn(answer.request.node, facts.get("hosted"))
    return facts


def _record(answer: Answer, phase: Phase) -> None:
    """Enter one answer into the accounts, whatever it holds."""
    roster = phase.roster
    if answer.request.kind != phase.kind:  # its phase is over; whom a node hosts is worth knowing
        with contextlib.suppress(ShardError):
            _learn(answer, roster)
        return
    reason, served, refused = answer.reason, set[int](), dict[int, str]()
    try:
        if (facts := _learn(answer, roster)) is not None:
            served, refused = phase.accept(answer, facts)
            refused = _stated(facts) | refused
            stated = facts.get("error")
            missing = f"its node answered, but not for it within {answer.seconds:.1f} s"
            reason = stated if isinstance(stated, str) else missing
    except ShardError as error:
        reason = f"unreadable answer: {error}"
    for i in set(phase.concerned(answer)) - served:
        phase.reasons[i] = _line(refused.get(i, reason))
    if answer.request.node not in roster.hosted:
        phase.unassigned = _line(f"its node did not say whom it hosts: {reason}")
    phase.wanted -= served


def _line(reason: str) -> str:
    """A reason as one short line without control characters, which could fool a terminal."""
    text = " ".join(reason[: 10 * _MAX_REASON].split())[:_MAX_REASON]
    return "".join(c if c.isprintable() else "?" for c in text)


def _stated(facts: Mapping[str, Any]) -> dict[int, str]:
    """Reasons that participants gave themselves, as far as they are usable."""
    failed = facts.get("failed")
    entries: Iterable[Any] = failed if isinstance(failed, list) else ()
    return {
        entry["id"]: entry["reason"]
        for entry in entries
        if isinstance(entry, dict)
        and type(entry.get("id")) is int
        and isinstance(entry.get("reason"), str)
    }
