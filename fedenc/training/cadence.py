"""When a run under way is saved."""

import time
from collections.abc import Iterator
from typing import Protocol

from fedenc.training.loop import Progress

SHARE = 0.02  # of the time may go into making and writing checkpoints


class Resumable(Protocol):
    """A training under way that can be continued from its checkpoints."""

    def __iter__(self) -> Iterator[Progress]: ...

    def checkpoint(self) -> bytes: ...


def with_checkpoints(run: Resumable, *, seconds: float) -> Iterator[tuple[Progress, bytes | None]]:
    """Train; yield every report, with a checkpoint where one is due.

    One is due at the end, and whenever ``seconds`` have passed since the last; later, where to make
    it and to do with it what the caller does takes more than a small share of the time.
    """
    saved, pause = time.monotonic(), seconds
    for progress in run:
        begun = time.monotonic()
        if not (progress.done or begun - saved >= pause):
            yield progress, None
            continue
        yield progress, run.checkpoint()
        saved = time.monotonic()
        pause = max(seconds, (saved - begun) / SHARE)
