"""Ctrl-C, SIGTERM and SIGHUP: each ends a command in the same orderly way, with its own hint."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

EXIT_CODE = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 45.0  # seconds to wind up in, after which the process ends as it is
_REPEAT, _RESUME = "repeat the command to continue", "continue with --resume"
_HINTS = {
    **dict.fromkeys(("simulate", "study", "reproduce"), _RESUME),
    **dict.fromkeys(("attack", "transformation train", "encrypt", "decrypt"), _REPEAT),
}
_taken = False  # whether signals are this module's
_begun: set[tuple[int, str]] = set()  # processes below this one when a signal came


def install() -> None:
    """Let the signals raise KeyboardInterrupt, once: while the command winds up, more of them are
    ignored. One that is ignored already stays so, which is what ``nohup`` is for."""
    global _taken
    _taken = True
    # Else a thread that calls Ray after its end would start another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def reinstall() -> None:
    """Take the signals back from Ray, which has its own handlers from when it starts."""
    if _taken and threading.current_thread() is threading.main_thread():
        install()


def tell(arguments: Sequence[str]) -> None:
    """Say that a command was interrupted, and how to go on where that is possible."""
    words = [word for word in arguments if not word.startswith("-")]
    known = (_HINTS.get(" ".join(words[:length])) for length in (2, 1))
    how = next(filter(None, known), None)
    print("fedenc: interrupted" + (f"; {how}" if how else ""), file=sys.stderr, flush=True)


def end_processes() -> None:
    """End what this process has started, and what that has, such as Ray's workers."""
    for identity in _begun | _below(os.getpid()):
        if identity in _running():
            with contextlib.suppress(OSError):
                os.kill(identity[0], signal.SIGKILL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    _begun.update(_below(os.getpid()))
    last = threading.Timer(_GRACE, _give_up)
    last.daemon = True
    last.start()
    raise KeyboardInterrupt


def _give_up() -> None:
    tell(sys.argv[1:])
    end_processes()
    os._exit(EXIT_CODE)


def _below(process: int) -> set[tuple[int, str]]:
    """A process's children, theirs, and so on."""
    running = _running()
    found, last = set[tuple[int, str]](), {process}
    while last:
        new = {identity for identity, parent in running.items() if parent in last}
        found |= new
        last = {number for number, _ in new}
    return found


def _running() -> dict[tuple[int, str], int]:
    """All processes, by number and start, with their parents' numbers; none where there is no
    ``/proc``."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = path.read_text().rpartition(")")[2].split()  # after the program's name
            if fields[0] != "Z":
                found[int(path.parent.name), fields[19]] = int(fields[1])
    return found
