"""Keyfiles: a JSON object that holds a master key, in the clear or under a passphrase.

Without a passphrase only the file's mode, 0600, protects it. With one, scrypt (RFC 7914; N=2¹⁷,
r=8, p=1, about 128 MiB) derives a key from it, under which ChaCha20-Poly1305 (RFC 8439) encrypts
the master; all other fields of the file are its associated data. Other parameters of scrypt are
refused: they could ask for hours, or for less work than protects.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedenc import documents
from fedenc.errors import KeyfileError

FORMAT = "fedenc keyfile"
VERSION = 1
_SCRYPT = {"n": 2**17, "r": 8, "p": 1}
_SCRYPT_MEMORY = 2**28  # bytes
_OTHERS = stat.S_IRWXG | stat.S_IRWXO  # what the owner's group and everybody may do


def write(
    path: str | os.PathLike[str],
    master: bytes,
    participant: int,
    fingerprint: str,
    passphrase: str | None = None,
) -> None:
    """Write a new keyfile with mode 0600.

    Raises:
        KeyfileError: the path exists (keys are never overwritten), cannot be written, or the
            passphrase is empty.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "participant": participant,
        "fingerprint": fingerprint,
    }
    if passphrase is None:
        content["master"] = master.hex()
    else:
        content |= {"kdf": "scrypt", **_SCRYPT, "salt": secrets.token_hex(16)}
        content |= {"aead": "chacha20-poly1305", "nonce": secrets.token_hex(12)}
        box = ChaCha20Poly1305(_passphrase_key(passphrase, content))
        sealed = box.encrypt(bytes.fromhex(content["nonce"]), master, _canonical(content))
        content["sealed"] = sealed.hex()
    content["checksum"] = _checksum(content)
    _create(os.fspath(path), json.dumps(content, indent=1).encode() + b"\n")


def read(path: str | os.PathLike[str], passphrase: str | None = None) -> tuple[bytes, int]:
    """Read a keyfile: master and participant.

    Raises:
        KeyfileError: missing, unreadable or damaged; its passphrase is missing or wrong; or it has
            none, and its mode lets others read it.
    """
    name = os.fspath(path)
    content, mode = _parse(name)
    try:
        if content.pop("checksum") != _checksum(content):
            raise ValueError("its checksum does not match")
        participant = content["participant"]
        if type(participant) is not int:
            raise ValueError(f"participant is {participant!r}, expected a whole number")
        if "sealed" not in content:
            if mode & _OTHERS:
                raise KeyfileError(
                    f"keyfile {name} has mode {mode:04o}, which opens it to others, and no "
                    f"passphrase; make it yours alone with: chmod 600 {name}"
                )
            return bytes.fromhex(content["master"]), participant
        if passphrase is None:
            raise KeyfileError(f"keyfile {name} is protected by a passphrase; give it")
        sealed, nonce = bytes.fromhex(content.pop("sealed")), bytes.fromhex(content["nonce"])
        box = ChaCha20Poly1305(_passphrase_key(passphrase, content))
        return box.decrypt(nonce, sealed, _canonical(content)), participant
    except InvalidTag:
        raise KeyfileError(f"keyfile {name} does not open: the passphrase is wrong") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise KeyfileError(
            f"keyfile {name} is damaged ({error}); restore it from a copy"
        ) from error


def is_sealed(path: str | os.PathLike[str]) -> bool:
    """Whether a keyfile is protected by a passphrase.

    Raises:
        KeyfileError: missing, unreadable, or not a keyfile.
    """
    return "sealed" in _parse(os.fspath(path))[0]


def _parse(name: str) -> tuple[dict[str, Any], int]:
    """What is in a keyfile, and its mode."""
    try:
        with open(name, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = documents.parse(file.read(65536))
    except FileNotFoundError:
        raise KeyfileError(
            f"keyfile {name} does not exist; make one with: fedenc keygen {name}"
        ) from None
    except OSError as error:
        raise KeyfileError(f"keyfile {name} cannot be read: {error.strerror}") from error
    except ValueError:
        raise KeyfileError(f"{name} is not a keyfile: expected JSON of format {FORMAT!r}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise KeyfileError(f"{name} is not a keyfile: expected JSON of format {FORMAT!r}")
    if content.get("version") != VERSION:
        raise KeyfileError(
            f"keyfile {name} has version {content.get('version')!r}, this program reads {VERSION}"
        )
    return content, mode


def _create(name: str, data: bytes) -> None:
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyfileError(
            f"{name} exists and keyfiles are never overwritten; choose another path or remove it"
        ) from None
    except OSError as error:
        raise KeyfileError(f"keyfile {name} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise KeyfileError(f"keyfile {name} cannot be written: {error.strerror}") from error


def _passphrase_key(passphrase: str, content: dict[str, Any]) -> bytes:
    if not passphrase:
        raise KeyfileError("the passphrase is empty; give one, or save without a passphrase")
    if content["kdf"] != "scrypt" or content["aead"] != "chacha20-poly1305":
        raise ValueError(f"unknown protection {content['kdf']} with {content['aead']}")
    if any(type(content[name]) is not int or content[name] != _SCRYPT[name] for name in _SCRYPT):
        found = {name: content[name] for name in _SCRYPT}
        raise ValueError(f"scrypt has the parameters {found}, expected {_SCRYPT}")
    salt = bytes.fromhex(content["salt"])
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, **_SCRYPT, dklen=32, maxmem=_SCRYPT_MEMORY
    )


def _checksum(content: dict[str, Any]) -> str:
    """Detects accidental damage, not attacks; an encrypted master is authenticated as well."""
    return hashlib.blake2b(_canonical(content), digest_size=8).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
