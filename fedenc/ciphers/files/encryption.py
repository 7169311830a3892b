"""Encrypt and decrypt image files: one, or a folder of any size with several processes.

Encrypting ``photos/`` into ``sent/`` writes ``sent/a/b.png`` for ``photos/a/b.png``, and the
manifest ``sent/fedenc-manifest.jsonl``; encrypting one file into ``x.png`` writes
``x.png.fedenc.jsonl``. An image that fails is reported and does not stop the others. A run that was
interrupted continues where it stopped; every attempt at an image uses a new random id, so no key is
used for two images.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedenc.ciphers.base import Cipher
from fedenc.ciphers.files import manifest
from fedenc.ciphers.files.manifest import Entry, Header
from fedenc.errors import CipherError, DataError, EngineError, FedencError
from fedenc.files import FileSummary
from fedenc.images import lossless
from fedenc.keys import KeyRing, Keystream, Policy, new_nonce

Progress = Callable[[int, int], None]
_FILES_A_PROCESS = 32  # with fewer, starting a process costs more time than it saves


@dataclass(frozen=True)
class _Job:
    source: Path
    target: Path
    entry: Entry


_Outcome = Entry | str  # the finished entry, or why it failed
_Worker = Callable[[_Job], _Outcome]


def encrypt(
    source: Path,
    target: Path,
    cipher: Cipher,
    ring: KeyRing,
    *,
    policy: Policy = "image",
    suffix: str = ".png",
    processes: int | None = None,
    progress: Progress | None = None,
) -> FileSummary:
    """Encrypt an image or all images of a folder.

    Args:
        source: a file, or a folder that is searched for PNG, WebP, BMP and JPEG files.
        target: a file or folder; a folder must be new, empty, or of the same run, interrupted.
        cipher: the cipher to use.
        ring: the keys to use.
        policy: which images share a key.
        suffix: format of the encrypted files of a folder: .png, .webp or .bmp.
        processes: how many work at the same time; None lets the number of files decide.
        progress: called with (files finished, files in all).

    Raises:
        CipherError: a lossy format, or a target that holds images encrypted otherwise.
        DataError: nothing to encrypt, or a target that holds other files.
        EngineError: another process is encrypting into the target.
        KeyfileError: another key than the interrupted run's.
    """
    header = Header.of(cipher, policy, new_nonce(), ring)
    if source.is_file():
        target = target / f"{source.stem}{suffix}" if target.is_dir() else target
        lossless.check_lossless(target.suffix)
        return _encrypt_file(
            _Job(source, target, _new_entry(target.name, source.name)), header, ring
        )
    lossless.check_lossless(suffix)
    names = _images(source, target)
    encrypted = with_suffix(names, suffix)
    _refuse_twins([_lossless_name(name) for name in names])
    record = target / manifest.NAME
    if target.exists() and not record.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is not an empty folder and holds no manifest; choose another")
    with manifest.opened(record) as book:
        if book.header is None:
            book.start(header)
        else:
            header = _continued(record, book.header, header, ring)
        jobs = [
            _Job(source / name, target / out, _new_entry(out, name))
            for name, out in zip(names, encrypted, strict=True)
        ]
        left = [j for j in jobs if not (j.entry.file in book.entries and j.target.exists())]
        skipped = len(jobs) - len(left)
        worker = partial(_encrypt_one, header, ring)
        return _run(worker, left, skipped, book.append, processes, progress)


def decrypt(
    source: Path,
    target: Path,
    ring: KeyRing,
    *,
    processes: int | None = None,
    progress: Progress | None = None,
) -> FileSummary:
    """Decrypt an encrypted image or folder; the method and its parameters come from the manifest.

    Args:
        source: an encrypted file or folder, with its manifest.
        target: a file or folder; files that are there already are left as they are.
        ring: the keys used to encrypt.
        processes: how many work at the same time; None lets the number of files decide.
        progress: called with (files finished, files in all).

    Raises:
        DataError: no manifest, or a damaged one.
        KeyfileError: the wrong key.
        CipherError: a lossy output format, or a cipher that is not installed.
    """
    single = source.is_file()
    record, name = _find_manifest(source) if single else (source / manifest.NAME, None)
    header, entries = manifest.load(record)
    header.check_key(ring)
    if single:
        if name not in entries:
            raise DataError(f"manifest {record} does not list {name}")
        entry = entries[name]
        if target.is_dir():
            target = target / _lossless_name(Path(entry.source).name)
        lossless.check_lossless(target.suffix)
        if target.exists():
            raise DataError(f"{target} exists and would be overwritten; choose another name")
        jobs = [_Job(source, target, entry)]
    else:
        _refuse_nesting(source, target)
        jobs = [
            _Job(source / e.file, target / _lossless_name(e.source), e) for e in entries.values()
        ]
    left = [job for job in jobs if not job.target.exists()]
    skipped = len(jobs) - len(left)
    done = _run(partial(_decrypt_one, header, ring), left, skipped, None, processes, progress)
    return done if single else replace(done, failed=(*done.failed, *_unlisted(source, entries)))


def _unlisted(source: Path, entries: Mapping[str, Entry]) -> Iterator[tuple[str, str]]:
    """Images in an encrypted folder of which the manifest says nothing, and so nobody can."""
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.suffix.lower() in lossless.LOSSLESS and name not in entries:
            yield (
                str(path),
                "the manifest does not list it: its encryption was interrupted, or the manifest's "
                "end is lost; encrypt it again",
            )


def _new_entry(file: str, source: str) -> Entry:
    return Entry(file, source, secrets.randbits(63))


def _encrypt_file(job: _Job, header: Header, ring: KeyRing) -> FileSummary:
    record = _beside(job.target)
    for path in (job.target, record):
        if path.exists() and (path == job.target or path.stat().st_size):
            raise DataError(f"{path} exists and would be overwritten; choose another name")
    with manifest.opened(record) as book:
        if book.header is not None or job.target.exists():
            raise DataError(f"{job.target} exists and would be overwritten; choose another name")
        outcome = _encrypt_one(header, ring, job)
        if isinstance(outcome, str):
            record.unlink()
            return FileSummary(0, 0, ((str(job.source), outcome),))
        book.start(header)
        book.append(outcome)
    return FileSummary(1, 0, ())


def _encrypt_one(header: Header, ring: KeyRing, job: _Job) -> _Outcome:
    try:
        cipher = header.build()
        image, mode = lossless.read(job.source)
        image = _with_channels(image, cipher)
        channels, height, width = image.shape
        entry = replace(job.entry, shape=(channels, height, width), mode=mode)
        found = cipher.encrypt(image[None], _keystream(header, ring, entry))[0]
        if len(found) not in (1, 3):
            raise CipherError(f"{cipher.name} makes {len(found)} channels, no file format holds it")
        lossless.write(job.target, found, "L" if len(found) == 1 else "RGB")
        return replace(entry, digest=manifest.digest(found))
    except FedencError as error:
        return str(error)
    except Exception as error:  # whatever is wrong with one file must not stop the others
        return f"{type(error).__name__}: {error}"


def _decrypt_one(header: Header, ring: KeyRing, job: _Job) -> _Outcome:
    try:
        cipher, entry = header.build(), job.entry
        image, _ = lossless.read(job.source)
        if cipher.output_shape(*entry.shape)[0] == 1:
            image = image[:1]  # WebP stores gray as three equal channels
        if manifest.digest(image) != entry.digest:
            raise DataError(
                f"{entry.file} does not hold the ciphertext that the manifest describes; restore "
                "it from a copy"
            )
        keystream = _keystream(header, ring, entry)
        found = cipher.decrypt(image[None], keystream, shape=entry.shape)[0]
        lossless.write(job.target, found, entry.mode)
        return entry
    except FedencError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _keystream(header: Header, ring: KeyRing, entry: Entry) -> Keystream:
    return ring.keystream(
        method=header.cipher,
        policy=header.policy,
        purpose=manifest.PURPOSE,
        nonce=bytes.fromhex(header.nonce),
        ids=np.array([entry.id]),
    )


def _with_channels(image: Tensor, cipher: Cipher) -> Tensor:
    """A gray image in three equal channels where the cipher does not take one."""
    if len(image) == 1:
        try:
            cipher.output_shape(*image.shape)
        except CipherError:
            return image.expand(3, -1, -1)
    return image


def _run(
    worker: _Worker,
    jobs: Sequence[_Job],
    skipped: int,
    note: Callable[[Entry], None] | None,
    processes: int | None,
    progress: Progress | None,
) -> FileSummary:
    done, failed = 0, []
    total = len(jobs) + skipped
    for job, outcome in zip(jobs, _outcomes(worker, jobs, processes), strict=True):
        if isinstance(outcome, str):
            failed.append((str(job.source), outcome))
        else:
            done += 1
            if note:
                note(outcome)
        if progress:
            progress(skipped + done + len(failed), total)
    return FileSummary(done, skipped, tuple(failed))


def _outcomes(worker: _Worker, jobs: Sequence[_Job], processes: int | None) -> Iterator[_Outcome]:
    if processes is None:
        processes = min(os.cpu_count() or 1, len(jobs) // _FILES_A_PROCESS)
    if processes <= 1:
        yield from map(worker, jobs)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    pool = ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,))
    try:
        yield from pool.map(worker, jobs, chunksize=4)
    except BrokenProcessPool as error:
        raise EngineError(
            "a process that worked on images died, probably because memory ran out; run the same "
            "command again with fewer --processes: it continues where it stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _images(source: Path, target: Path) -> list[str]:
    if not source.is_dir():
        raise DataError(f"{source} does not exist")
    _refuse_nesting(source, target)
    names = sorted(
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.suffix.lower() in lossless.READABLE and path.is_file()
    )
    if not names:
        raise DataError(f"{source} holds no {', '.join(lossless.READABLE)} files")
    return names


def _refuse_nesting(source: Path, target: Path) -> None:
    if target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{target} lies inside {source}; choose a folder outside it")


def with_suffix(names: Sequence[str], suffix: str) -> list[str]:
    """Names of the encrypted files: ``a.png`` stays, ``a.bmp`` becomes ``a.bmp.png``."""
    out = [n if Path(n).suffix.lower() == suffix else n + suffix for n in names]
    _refuse_twins(out)
    return out


def _refuse_twins(names: Sequence[str]) -> None:
    if twins := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"two images would both become {twins[0]}; rename one of them")


def _lossless_name(source: str) -> str:
    """The name of a decrypted file: the original, with .png added if its format is lossy."""
    return source if Path(source).suffix.lower() in lossless.LOSSLESS else source + ".png"


def _continued(record: Path, found: Header, wanted: Header, ring: KeyRing) -> Header:
    """The interrupted run's header, if what is wanted continues that run."""
    found.check_key(ring)
    for field in ("cipher", "params", "policy"):
        before, asked = getattr(found, field), getattr(wanted, field)
        if before != asked:
            raise CipherError(
                f"{record.parent} holds images encrypted with {field} {before}, asked is {asked}; "
                "choose another folder"
            )
    return found


def _beside(target: Path) -> Path:
    return target.with_name(target.name + ".fedenc.jsonl")


def _find_manifest(source: Path) -> tuple[Path, str]:
    """The manifest that lists a file: beside it, or in a folder above it."""
    if _beside(source).exists():
        return _beside(source), source.name
    for folder in source.resolve().parents:
        if (folder / manifest.NAME).exists():
            return folder / manifest.NAME, source.resolve().relative_to(folder).as_posix()
    return _beside(source), source.name
