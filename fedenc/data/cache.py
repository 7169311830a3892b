"""Decoded arrays on disk: decoded once on a machine, then memory-mapped by every process.

An entry is a folder ``<name>-<digest>`` that appears by one rename when it is complete. A process
that finds it takes no lock. A process that does not find it takes an advisory lock, which the
kernel drops when the process dies; it then looks again, and decodes only if the entry is still
missing or damaged.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedenc import documents
from fedenc.data.dataset import Dataset, Split
from fedenc.errors import DataError
from fedenc.files import locked

logger = logging.getLogger(__name__)

_FORMAT = 1  # increased when decoding or the layout changes, so that older entries are ignored
_META = "meta.json"

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (n, 3, H, W), labels (n,)


@dataclass(frozen=True)
class Part:
    """A split before it is decoded: how many images, and a generator of batches of them."""

    count: int
    batches: Iterable[Batch]


@dataclass(frozen=True)
class Decoded:
    """What decoding a source yields."""

    classes: tuple[str, ...]
    train: Part
    test: Part


@dataclass(frozen=True)
class Source:
    """A data set on disk: what identifies it, and how to decode it.

    ``files`` are identified by path, size and modification time, ``parameters`` by value. These and
    ``name`` decide the cache entry. ``decode`` is called only if there is no valid entry.
    """

    name: str
    files: tuple[Path, ...]
    parameters: Mapping[str, Any]
    decode: Callable[[], Decoded]


def default_cache() -> Path:
    """Folder of the cache: ``$FEDENC_CACHE``, else ``fedenc`` in the platform's user cache."""
    if chosen := os.environ.get("FEDENC_CACHE"):
        return Path(chosen).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "fedenc"
    user = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return user.expanduser() / "fedenc"


def cached(source: Source, cache: Path | None = None) -> Dataset:
    """The decoded data set, from the cache if a valid entry is there, else decoded into it.

    Safe under any number of concurrent processes and threads: one decodes, the others wait. A
    damaged entry is replaced; arrays that somebody has already mapped stay valid.

    Raises:
        DataError: the source cannot be decoded, or the cache cannot be written.
    """
    root = default_cache() if cache is None else cache
    entry = root / f"{source.name}-{_digest(source)}"
    if (dataset := _read_entry(entry, source.name)) is not None:
        return dataset
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f"{entry.name}.lock"):
            if (dataset := _read_entry(entry, source.name)) is None:
                logger.info("decoding %s into %s", source.name, entry)
                _write_entry(entry, source)
                dataset = _read_entry(entry, source.name)
    except OSError as error:
        raise DataError(
            f"cannot write the decoded images of {source.name} under {root}: {error}; "
            "free space there, or set FEDENC_CACHE to a writable folder"
        ) from error
    if dataset is None:
        raise DataError(
            f"{entry} changed while it was being written; "
            "set FEDENC_CACHE to a folder that only fedenc writes to"
        )
    return dataset


def _digest(source: Source) -> str:
    try:
        files = [
            (os.path.abspath(file), stat.st_size, stat.st_mtime_ns)
            for file in source.files
            for stat in (file.stat(),)
        ]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    identity = [_FORMAT, source.name, dict(sorted(source.parameters.items())), files]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]


def _read_entry(entry: Path, name: str) -> Dataset | None:
    """The entry's data set; None if it is missing or not what was written."""
    try:
        meta = documents.parse((entry / _META).read_bytes())
        arrays = {key: _open_array(entry, key, record) for key, record in meta["arrays"].items()}
        return Dataset(
            name=name,
            train=Split(arrays["train-images"], arrays["train-labels"]),
            test=Split(arrays["test-images"], arrays["test-labels"]),
            classes=tuple(meta["classes"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if entry.exists():
            logger.warning("the cache entry %s is damaged (%s) and will be rebuilt", entry, error)
        return None


def _open_array(entry: Path, key: str, record: Mapping[str, Any]) -> NDArray[Any]:
    file = entry / f"{key}.npy"
    stat = file.stat()
    if stat.st_size != record["bytes"]:
        raise ValueError(f"{file.name} has {stat.st_size} bytes, not {record['bytes']}")
    if stat.st_mtime_ns != record["mtime_ns"]:
        # Copied, restored or changed: the hash decides. The time is set back, so that the next
        # reader need not hash again.
        if _sha256(file) != record["sha256"]:
            raise ValueError(f"{file.name} does not have its recorded SHA-256")
        with contextlib.suppress(OSError):
            os.utime(file, ns=(stat.st_atime_ns, record["mtime_ns"]))
    array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return array


def _write_entry(entry: Path, source: Source) -> None:
    """Decode into a temporary folder and rename it to ``entry``; the caller holds the lock."""
    for left in entry.parent.glob(f"{entry.name}.*.tmp"):  # left by processes that were killed
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".tmp", dir=entry.parent))
    try:
        decoded = source.decode()
        arrays: dict[str, Any] = {}
        sides: set[tuple[int, ...]] = set()
        for split, part in (("train", decoded.train), ("test", decoded.test)):
            shape = _write_split(work, split, part, source.name)
            sides.add(shape[1:])
            arrays |= {key: _record(work / f"{key}.npy") for key in _keys(split)}
        if len(sides) > 1:
            raise DataError(
                f"the training and test images of {source.name} differ in (C, H, W): "
                f"{sorted(sides)}; pass size to resize them all"
            )
        meta = {"classes": decoded.classes, "arrays": arrays, "source": dict(source.parameters)}
        (work / _META).write_text(json.dumps(meta, indent=1))
        work.chmod(0o755)  # mkdtemp's 0700 would lock other users out of a shared cache
        if entry.exists():
            discarded = Path(
                tempfile.mkdtemp(prefix=f"{entry.name}.", suffix=".tmp", dir=work.parent)
            )
            entry.rename(discarded / "damaged")
            shutil.rmtree(discarded, ignore_errors=True)
        work.rename(entry)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keys(split: str) -> tuple[str, str]:
    return f"{split}-images", f"{split}-labels"


def _write_split(work: Path, split: str, part: Part, name: str) -> tuple[int, ...]:
    """Write a split to disk batch by batch, so that it is never in memory as a whole."""
    images_key, labels_key = _keys(split)
    labels = []
    shape: tuple[int, ...] = ()
    # Plain writes, not a writable memory map: a full disk is then an error and not a SIGBUS.
    with (work / f"{images_key}.npy").open("wb") as file:
        for images, batch_labels in part.batches:
            if not shape:
                shape = (part.count, *images.shape[1:])
                header = {"shape": shape, "fortran_order": False, "descr": "|u1"}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(images).data)
            labels.append(batch_labels)
        file.flush()
        os.fsync(file.fileno())
    found = sum(map(len, labels))
    if found != part.count or not shape:
        raise DataError(
            f"the {split} split of {name} announces {part.count} images and holds {found}; "
            "expected at least one, and as many as announced: fetch its files again"
        )
    with (work / f"{labels_key}.npy").open("wb") as file:
        np.save(file, np.concatenate(labels).astype(np.int64))
        file.flush()
        os.fsync(file.fileno())
    return shape


def _record(file: Path) -> dict[str, Any]:
    stat = file.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
