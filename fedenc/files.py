"""Writing files so that a crash never leaves half of one, and telling what became of many."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fedenc.errors import DataError


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
    """Write to a neighbour, flush to disk, and rename over ``path``; ``mode`` as in ``chmod``.

    Raises:
        DataError: it cannot be written; what was there before still is.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def unwritable(path: Path, error: OSError) -> DataError:
    """What to tell whoever named a place that cannot be written."""
    return DataError(
        f"{path} cannot be written: {error.strerror or error}; name a place that you may write to "
        "and that has room"
    )


@contextlib.contextmanager
def locked(path: Path, *, busy: Exception | None = None) -> Iterator[BinaryIO]:
    """Hold an exclusive lock on a file, open to read and append, until the end of the block.

    It ends with its holder, however that ends. The file stays: otherwise two processes could lock
    two different files of the same name.

    Args:
        path: the file; made if it does not exist.
        busy: raised if another process holds the lock; None: wait for it.
    """
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            if busy is None:
                raise
            raise busy from None
        yield file
