"""The manifest beside encrypted files: everything public that decryption needs, and no more.

A manifest is a text file of JSON lines. The first names the cipher with its parameters, the key
policy, the run's nonce and a check value of the key, from which nobody without the key learns
anything. Every further line records one finished file, with a digest of its ciphertext. Every line
has a checksum over itself and its number. Lines are only ever appended, so an interrupted run loses
at most its last line, and continues where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from torch import Tensor

from fedenc import documents
from fedenc.ciphers.base import Cipher, Parameter, Shape
from fedenc.ciphers.registry import make
from fedenc.errors import CipherError, DataError, EngineError, KeyfileError
from fedenc.files import locked, unwritable
from fedenc.keys import NONCE_BYTES, POLICIES, KeyRing, Policy

FORMAT = "fedenc encrypted images"
VERSION = 3  # counts changes of manifests and of how ciphers draw their keys
NAME = "fedenc-manifest.jsonl"
PURPOSE = "file"
_CHECK = "check"  # the field of a line that holds its checksum


@dataclass(frozen=True)
class Header:
    """One run of encryption: cipher, policy, nonce (32 hex digits) and key check value."""

    cipher: str
    params: dict[str, Parameter]
    policy: Policy
    nonce: str
    key_check: str

    @classmethod
    def of(cls, cipher: Cipher, policy: Policy, nonce: bytes, ring: KeyRing) -> Header:
        """Describe a run."""
        return cls(cipher.name, cipher.params(), policy, nonce.hex(), _check_value(ring, nonce))

    def build(self) -> Cipher:
        """The cipher with its parameters."""
        return make(self.cipher, **self.params)

    def check_key(self, ring: KeyRing) -> None:
        """Raises KeyfileError unless the ring is the one that encrypted."""
        if _check_value(ring, bytes.fromhex(self.nonce)) != self.key_check:
            raise KeyfileError(
                f"the key with fingerprint {ring.fingerprint} (participant {ring.participant}) is "
                "not the one these images were encrypted with; give the keyfile used then"
            )


@dataclass(frozen=True)
class Entry:
    """One encrypted file.

    Attributes:
        file: where it is, relative to the manifest.
        source: what it was, relative to the source folder.
        id: its id in key derivation; random, so that no two images share a key.
        shape: C, H, W of what was encrypted.
        mode: the plain file's mode: RGB, L or RGBA.
        digest: of the ciphertext; see ``digest``.
    """

    file: str
    source: str
    id: int
    shape: Shape = (0, 0, 0)
    mode: str = ""
    digest: str = ""


@dataclass
class Manifest:
    """A manifest that this process alone may append to."""

    path: Path
    header: Header | None  # None: nothing is in it yet
    entries: dict[str, Entry] = field(default_factory=dict)  # by ``file``
    _lines: int = 0
    _file: BinaryIO | None = None

    def start(self, header: Header) -> None:
        """Write its first line."""
        self.header = header
        self._write({"format": FORMAT, "version": VERSION, **asdict(header)})

    def append(self, entry: Entry) -> None:
        """Record a finished file.

        Raises:
            DataError: it cannot be written.
        """
        self.entries[entry.file] = entry
        self._write(asdict(entry))

    def _write(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        self._lines += 1
        try:
            self._file.write(json.dumps(line | {_CHECK: _checksum(self._lines, line)}).encode())
            self._file.write(b"\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Manifest]:
    """Take a manifest to append to, new or of an interrupted run, until the end of the block.

    Raises:
        DataError: it cannot be written, or is damaged.
        EngineError: another process has it.
    """
    busy = EngineError(f"another process is encrypting into {path.parent}; wait for it to end")
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(locked(path, busy=busy))
            file.seek(0)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            header, entries = _parsed(path, data) if whole else (None, {})
            file.truncate(whole)  # an unfinished last line is cut off
        except OSError as error:
            raise unwritable(path, error) from error
        yield Manifest(path, header, entries, data.count(b"\n"), file)


def load(path: Path) -> tuple[Header, dict[str, Entry]]:
    """Read a manifest: its header, and its entries by ``file``.

    Raises:
        DataError: missing, not a manifest, or damaged before its last line.
    """
    try:
        return _parsed(path, path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"there is no manifest {path}; it was written beside the encrypted images and is "
            "needed to decrypt them"
        ) from None
    except OSError as error:
        raise DataError(f"manifest {path} cannot be read: {error.strerror}") from error


def digest(ciphertext: Tensor) -> str:
    """Of the pixels of a ciphertext, uint8 (C, H, W), whatever file format holds them: 128 bits in
    hexadecimal."""
    found = hashlib.blake2b(json.dumps(list(ciphertext.shape)).encode(), digest_size=16)
    found.update(ciphertext.contiguous().numpy().tobytes())
    return found.hexdigest()


def _parsed(path: Path, data: bytes) -> tuple[Header, dict[str, Entry]]:
    whole, _, torn = data.rpartition(b"\n")  # a line without its end was never finished
    lines = whole.split(b"\n") if whole else []
    header = _header(path, _json(path, 1, lines[0] if lines else torn))
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = _entry(path, number, _checked(path, number, _json(path, number, line)))
        entries[entry.file] = entry
    return header, entries


def _checksum(number: int, line: Mapping[str, Any]) -> str:
    """Detects accidental damage of a line, and lines that are missing before it."""
    text = json.dumps([number, line], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _checked(path: Path, number: int, line: dict[str, Any]) -> dict[str, Any]:
    if line.pop(_CHECK, None) != _checksum(number, line):
        raise DataError(f"manifest {path} is damaged in line {number}; restore it from a copy")
    return line


def _check_value(ring: KeyRing, nonce: bytes) -> str:
    return ring.secret("key check", nonce)[:8].hex()


def _json(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = documents.parse(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(f"manifest {path} is damaged in line {number}; restore it from a copy")
    return found


def _header(path: Path, line: dict[str, Any]) -> Header:
    if line.get("format") != FORMAT:
        raise DataError(f"{path} is not a manifest of format {FORMAT!r}")
    if line.get("version") != VERSION:
        raise DataError(
            f"{path} has version {line.get('version')!r}, this program reads {VERSION}; use the "
            "program that wrote it"
        )
    line = _checked(path, 1, line)
    try:
        header = Header(**{k: v for k, v in line.items() if k not in ("format", "version")})
        sound = len(bytes.fromhex(header.nonce)) == NONCE_BYTES and header.policy in POLICIES
        header.build()
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CipherError):
            raise
        sound = False
    if not sound:
        raise DataError(f"manifest {path} is damaged in line 1; restore it from a copy")
    return header


def _entry(path: Path, number: int, line: dict[str, Any]) -> Entry:
    try:
        channels, height, width = line.pop("shape")
        entry = Entry(**line, shape=(channels, height, width))
        if not all(type(number) is int for number in (*entry.shape, entry.id)):
            raise ValueError("expected whole numbers")
        entry.id.to_bytes(8, "little")
        safe = all(
            not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
            for name in (entry.file, entry.source)
        )
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"manifest {path} is damaged in line {number} ({error})") from error
    if not safe:
        raise DataError(f"manifest {path} names a file outside its folder in line {number}")
    return entry
