"""The provider's append-only store of accepted shards.

Two files: ``pool.bin`` holds the bytes, ``index.jsonl`` one line a shard. A shard counts if its
line is whole and its digest matches its bytes, so that neither the order in which a crash let them
reach the disk nor damage since can pass for one. The first that does not count ends the pool: what
follows is not read, and is cut off when the pool is opened to append.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fedenc.errors import DataError, ShardError
from fedenc.shard import DTYPES, TRAIN, VERSION, Manifest, Shard

_SYNC_SECONDS = 1.0  # between two waits for the disk, which cost milliseconds each
_ORDER = ("images", "ids", "views", "labels")
_LINE = {"manifest", "offset"}  # fields of a line of the index
_UNKNOWN = -1  # stands for the version of a line that has other fields
Rows = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class _Entry:
    """Where a shard lies in ``pool.bin``."""

    manifest: Manifest
    offset: int

    @property
    def size(self) -> int:
        m = self.manifest
        return m.rows * (math.prod(m.shape) + sum(DTYPES[name].itemsize for name in _ORDER[1:]))


class Pool:
    """Accepted shards on disk, each participant at most once. Nothing is written.

    Raises:
        DataError: there is no pool in ``folder``.
        ShardError: it holds shards of another version.
    """

    def __init__(self, folder: Path) -> None:
        self._data_path, self._index_path = folder / "pool.bin", folder / "index.jsonl"
        self._entries: dict[int, _Entry] = {}
        self._nonces: set[str] = set()
        self._rows = self._nbytes = self._index_bytes = 0  # of shards that count
        try:
            self._take_over()
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename} does not exist; expected the pool of a run, pool.bin and "
                "index.jsonl, in its folder provider/pool"
            ) from None

    def _take_over(self) -> None:
        """Note whole, undamaged shards up to the first that is not."""
        lines = self._index_path.read_bytes().splitlines(keepends=True)
        if others := {_stated_version(line) for line in lines} - {None, VERSION}:
            found = others.pop()
            version = "an unknown format" if found == _UNKNOWN else f"version {found}"
            raise ShardError(
                f"the pool in {self._index_path.parent} holds shards of {version}, expected "
                f"{VERSION}; it is left as it is: read it with the fedenc that wrote it, "
                "or start in another folder"
            )
        with self._data_path.open("rb") as data:
            size = os.fstat(data.fileno()).st_size
            for line in lines:
                entry = _parse(line)
                if entry is None or entry.offset != self._nbytes:
                    return
                if entry.offset + entry.size > size:
                    return
                if _load(data, entry).compute_digest() != entry.manifest.digest:
                    return
                self._note(entry)
                self._index_bytes += len(line)

    def __contains__(self, participant: object) -> bool:
        return participant in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def participants(self) -> tuple[int, ...]:
        """Ids of those whose shard is stored, ascending."""
        return tuple(sorted(self._entries))

    def manifest(self, participant: int) -> Manifest:
        """The public description of a stored shard."""
        return self._entries[participant].manifest

    def knows(self, nonce: str) -> bool:
        """Whether a stored shard was made under this nonce."""
        return nonce in self._nonces

    @property
    def rows(self) -> int:
        """Images stored, all views counted."""
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return self._nbytes

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all shards, by participant."""
        digests = (self._entries[i].manifest.digest for i in self.participants)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def shards(self) -> Iterator[Shard]:
        """All shards by participant, ascending, each with its rows as they were sent."""
        with self._data_path.open("rb") as data:
            for participant in self.participants:
                yield _load(data, self._entries[participant])

    def read(self, chunk_bytes: int = 32 << 20) -> Iterator[Rows]:
        """All images and labels in (participant, image, view) order, in chunks of whole shards.

        Yields:
            uint8 R×C×H×W images and int64 (R,) labels.
        """
        chunk, size = list[Shard](), 0
        for shard in self.shards():
            chunk.append(shard)
            size += shard.images.nbytes
            if size >= chunk_bytes:
                yield join(chunk)
                chunk, size = [], 0
        if chunk:
            yield join(chunk)

    def _note(self, entry: _Entry) -> None:
        self._entries[entry.manifest.participant] = entry
        self._nonces.add(entry.manifest.nonce)
        self._rows += entry.manifest.rows
        self._nbytes += entry.size


class PoolWriter(Pool):
    """A pool that takes more shards. What is damaged is cut off when it is opened.

    Args:
        folder: made if it does not exist; an earlier pool in it is taken over.

    Raises:
        ShardError: it holds a pool of another version, which is left as it is.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("pool.bin", "index.jsonl"):
            (folder / name).open("ab").close()
        super().__init__(folder)
        self._data = _open_at(self._data_path, self._nbytes)
        self._index = _open_at(self._index_path, self._index_bytes)
        self._synced = time.monotonic()

    def append(self, shards: Sequence[Shard]) -> None:
        """Store checked training shards. When this returns they survive a crash of the process; a
        crash of the machine may cost those of the last second, which are then asked for again.

        Raises:
            ShardError: a participant or a nonce comes a second time; nothing is stored then.
        """
        self._refuse_repeats(shards)
        for shard in shards:
            entry = _Entry(shard.manifest, self._nbytes)
            for name in _ORDER:
                self._data.write(np.ascontiguousarray(shard.arrays()[name]).data)
            self._note(entry)
        self._data.flush()
        for shard in shards:
            line = {
                "manifest": shard.manifest.to_json(),
                "offset": self._entries[shard.participant].offset,
            }
            self._index.write(json.dumps(line).encode() + b"\n")
        self._index.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        """Bring everything to disk and close the files."""
        self._sync()
        self._data.close()
        self._index.close()

    def _sync(self) -> None:
        os.fsync(self._data.fileno())
        os.fsync(self._index.fileno())
        self._synced = time.monotonic()

    def _refuse_repeats(self, shards: Sequence[Shard]) -> None:
        participants, nonces = set[int](), set[str]()
        for shard in shards:
            i, nonce = shard.participant, shard.manifest.nonce
            if i in self._entries or i in participants:
                raise ShardError(f"participant {i} has a shard in the pool already")
            if nonce in self._nonces or nonce in nonces:
                raise ShardError("nonce was used by another upload")
            participants.add(i)
            nonces.add(nonce)


def _load(data: BinaryIO, entry: _Entry) -> Shard:
    """Read one shard, rows as sent."""
    m, arrays = entry.manifest, dict[str, npt.NDArray[Any]]()
    data.seek(entry.offset)
    for name in _ORDER:
        shape = (m.rows, *m.shape) if name == "images" else (m.rows,)
        arrays[name] = np.fromfile(data, DTYPES[name], math.prod(shape)).reshape(shape)
    return Shard(m, **arrays)


def _stated_version(line: bytes) -> int | None:
    """The version that a line of the index states; None if the line was torn or damaged."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.keys() != _LINE:
        return _UNKNOWN  # whole, so somebody wrote it, but not this program
    try:
        version = json.loads(values["manifest"])["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if type(version) is int else None


def _parse(line: bytes) -> _Entry | None:
    """One line of the index, or None if it is not whole."""
    try:
        values = json.loads(line)
        entry = _Entry(Manifest.from_json(values["manifest"]), values["offset"])
    except (ValueError, KeyError, TypeError, RecursionError, ShardError):
        return None
    m = entry.manifest
    sound = m.version == VERSION and m.purpose == TRAIN and m.rows > 0
    sound = sound and type(entry.offset) is int
    return entry if sound and line.endswith(b"\n") else None


def _open_at(path: Path, size: int) -> BinaryIO:
    """Open a file to append to its first ``size`` bytes."""
    if path.stat().st_size != size:
        os.truncate(path, size)
    return path.open("ab")


def join(shards: Sequence[Shard]) -> Rows:
    """Concatenate shards, the rows of each by (image, view)."""
    images, labels = [], []
    for shard in shards:
        order = np.lexsort((shard.views, shard.ids))
        images.append(shard.images[order])
        labels.append(shard.arrays()["labels"][order].astype(np.int64))
    return np.concatenate(images), np.concatenate(labels)
