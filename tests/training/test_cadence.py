"""When a run is saved, by a clock of our own."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedenc.training import cadence
from fedenc.training.cadence import SHARE, with_checkpoints
from fedenc.training.loop import Progress


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Run:
    """Takes so long between reports, and for each checkpoint."""

    def __init__(self, clock: Clock, pauses: list[float], cost: float) -> None:
        self.clock, self.pauses, self.cost = clock, pauses, cost

    def __iter__(self) -> Iterator[Progress]:
        for step, pause in enumerate(self.pauses, start=1):
            self.clock.now += pause
            steps = len(self.pauses)
            yield Progress(1, 1, step, steps, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def checkpoint(self) -> bytes:
        self.clock.now += self.cost
        return b"state"


def saved(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], *, seconds: float, cost: float = 0.0
) -> list[tuple[float, bool]]:
    """The time of every report, and whether it came with a checkpoint."""
    clock = Clock()
    monkeypatch.setattr(cadence, "time", clock)
    run = Run(clock, pauses, cost)
    return [(clock.now, state is not None) for _, state in with_checkpoints(run, seconds=seconds)]


@given(
    pauses=st.lists(st.floats(0, 30), min_size=1, max_size=40),
    seconds=st.floats(0, 60),
    cost=st.floats(0, 0.5),
)
def test_every_report_comes_and_the_last_with_a_checkpoint(
    pauses: list[float], seconds: float, cost: float
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        reports = saved(monkeypatch, pauses, seconds=seconds, cost=cost)
    assert len(reports) == len(pauses)
    assert reports[-1][1]
    # The last may come early. Times are after a checkpoint's making, which is not waiting.
    times = [0.0, *(now for now, state in reports[:-1] if state)]
    gaps = [later - cost - earlier for earlier, later in pairwise(times)]
    assert all(gap >= seconds - 1e-9 for gap in gaps)


def test_a_checkpoint_is_due_when_its_seconds_have_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = saved(monkeypatch, [1.0] * 10, seconds=3.0)
    assert [now for now, state in reports if state] == [3.0, 6.0, 9.0, 10.0]


def test_dear_checkpoints_are_made_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = 2.0
    reports = saved(monkeypatch, [1.0] * 1000, seconds=5.0, cost=cost)
    times = [now for now, state in reports[:-1] if state]
    assert times[0] == 5.0 + cost
    assert len(times) > 5
    spent = cost * len(times) / times[-1]
    assert SHARE / 2 < spent < 1.2 * SHARE


def test_what_the_caller_does_with_a_checkpoint_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cadence, "time", clock)
    made = []
    for progress, state in with_checkpoints(Run(clock, [1.0] * 200, 0.0), seconds=1.0):
        if state is not None:
            made.append(progress.step)
            clock.now += 1.0  # to write it
    assert made[:2] == [1, 1 + round(1 / SHARE)]
