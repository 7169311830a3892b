"""Writing files so that a crash never leaves half of one, and telling what became of many."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileSummary:
    """What became of files that were worked on one by one.

    Attributes:
        done: written in this run.
        skipped: there already, from an earlier run.
        failed: (file, reason) of all others.
    """

    done: int
    skipped: int
    failed: tuple[tuple[str, str], ...]


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write to a neighbour, flush to disk, and rename over ``path``; ``mode`` as in ``chmod``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
