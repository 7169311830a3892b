"""A whole simulation by phase: seconds of the driver's CPU and of the clock."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import ray

from benchmarks.scale.memory import peak_resident
from fedenc import provenance
from fedenc.scenario import Scenario
from server.actor import ActorTrainer
from server.app import Event
from simulations import engine
from simulations.experiment import prepare
from simulations.run import simulate

Seconds = tuple[float, float]  # of the driver's CPU, all threads; of the clock


class Stopwatch:
    """Divides time into consecutive parts, each of which ends with a mark.

    Attributes:
        parts: seconds of each part; of all of its marks together, if there are several.
    """

    def __init__(self, now: Callable[[], Seconds]) -> None:
        self.parts: dict[str, Seconds] = {}
        self._now, self._last = now, (0.0, 0.0)

    def mark(self, part: str) -> None:
        """What has passed since the last mark belongs to ``part``."""
        now, before = self._now(), self.parts.get(part, (0.0, 0.0))
        cpu, wall = (b + n - last for b, n, last in zip(before, now, self._last, strict=True))
        self.parts[part], self._last = (cpu, wall), now

    def after(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The same function, with a mark whenever it returns."""

        def marked(*arguments: Any, **named: Any) -> Any:
            found = function(*arguments, **named)
            self.mark(part)
            return found

        return marked


def measure(scenario: Scenario, folder: Path, began: float) -> dict[str, Any]:
    """Run a scenario to its report.

    Args:
        began: when the process did, in seconds since the epoch.

    Returns:
        ``parts`` with CPU and wall seconds of each, in order: ``imports`` (with the interpreter),
        ``check``, ``ray``, ``nodes`` (Flower's start), ``first upload`` (client processes start),
        ``uploads``, ``trainer`` (waiting for it), ``pool`` (read and sent to it), ``training``,
        ``queries``, ``score``, ``stop`` (of the engine), ``results``; ``participants`` and
        ``rss_peak``, the driver's highest resident memory in bytes.
    """
    watch = Stopwatch(lambda: (time.process_time(), time.time() - began))
    watch.mark("imports")
    experiment = prepare(scenario)
    watch.mark("check")

    def note(event: Event) -> None:
        if event.phase == "upload" and event.done:
            watch.mark("uploads" if "first upload" in watch.parts else "first upload")
        elif event.phase in ("nodes", "queries", "score"):
            watch.mark(event.phase)

    with ExitStack() as stack:
        for owner, name, part in (
            (ray, "init", "ray"),
            (ActorTrainer, "where", "trainer"),
            (ActorTrainer, "load", "pool"),
            (ActorTrainer, "train", "training"),
            (engine, "simulate", "stop"),
        ):
            marked = watch.after(getattr(owner, name), part)
            stack.enter_context(mock.patch.object(owner, name, marked))
        result = simulate(experiment, folder, on_event=note).result
    watch.mark("results")
    return {
        "commit": provenance.commit(),
        "parts": watch.parts,
        "participants": result["clients"]["uploaded"],
        "seconds": sum(wall for _, wall in watch.parts.values()),
        "rss_peak": peak_resident(),
    }
