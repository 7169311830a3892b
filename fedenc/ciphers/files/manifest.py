"""The manifest beside encrypted files: everything public that decryption needs, and no more.

A manifest is a text file of JSON lines. The first names the cipher with its parameters, the key
policy, the run's nonce and a check value of the key, from which nobody without the key learns
anything. Every further line records one finished file. Lines are only ever appended, so an
interrupted run loses at most its last line, and continues where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fedenc.ciphers.base import Cipher, Parameter, Shape
from fedenc.ciphers.registry import make
from fedenc.errors import CipherError, DataError, KeyfileError
from fedenc.keys import NONCE_BYTES, POLICIES, KeyRing, Policy

FORMAT = "fedenc encrypted images"
VERSION = 2  # counts changes of manifests and of how ciphers draw their keys
NAME = "fedenc-manifest.jsonl"
PURPOSE = "file"


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
    """

    file: str
    source: str
    id: int
    shape: Shape = (0, 0, 0)
    mode: str = ""


def create(path: Path, header: Header) -> None:
    """Start a manifest.

    Raises:
        DataError: it exists or cannot be written.
    """
    line = {"format": FORMAT, "version": VERSION, **asdict(header)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise DataError(f"manifest {path} cannot be written: {error.strerror}") from error


def append(path: Path, entry: Entry) -> None:
    """Record a finished file."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(entry)) + "\n")


def load(path: Path) -> tuple[Header, dict[str, Entry]]:
    """Read a manifest: its header, and its entries by ``file``.

    Raises:
        DataError: missing, not a manifest, or damaged before its last line.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise DataError(
            f"there is no manifest {path}; it was written beside the encrypted images and is "
            "needed to decrypt them"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"manifest {path} cannot be read: {error}") from error
    whole, _, torn = text.rpartition("\n")  # a line without its end was never finished
    lines = whole.split("\n") if whole else []
    header = _header(path, _json(path, 1, lines[0] if lines else torn))
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = _entry(path, number, _json(path, number, line))
        entries[entry.file] = entry
    return header, entries


def trim(path: Path) -> None:
    """Cut off an unfinished last line, before appending to an interrupted run's manifest."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end != len(data):
        with path.open("r+b") as file:
            file.truncate(end)


def _check_value(ring: KeyRing, nonce: bytes) -> str:
    return ring.secret("key check", nonce)[:8].hex()


def _json(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
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
        channels, height, width = (int(size) for size in line.pop("shape"))
        entry = Entry(**line, shape=(channels, height, width))
        int(entry.id).to_bytes(8, "little")
        safe = all(
            not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
            for name in (entry.file, entry.source)
        )
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"manifest {path} is damaged in line {number} ({error})") from error
    if not safe:
        raise DataError(f"manifest {path} names a file outside its folder in line {number}")
    return entry
