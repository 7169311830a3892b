"""Keys: a participant's master key, and the subkeys derived from it for single images.

Subkey = BLAKE2b-256 (RFC 7693), keyed with the master, of the fields (version, method, purpose,
participant, nonce, id, view). Each field is written as its length (4 bytes, little-endian) and its
bytes; integers are 8 bytes, little-endian, two's complement. A key policy leaves fields empty:

=========  ===========================================  =========================================
policy     fields left empty                            what shares a key
=========  ===========================================  =========================================
``image``  none                                         nothing ("different keys" in the papers)
``client`` nonce, id, view                              all images of a participant
``same``   nonce, id, view, participant                 all images of all who hold the master
=========  ===========================================  =========================================

Visual protection rests on these keys, so they come from the operating system's generator and are
kept in files that only their owner can read. Only ``KeyRing.simulated`` derives a master from a
seed, for experiments; whoever can guess the seed has the key.
"""

from __future__ import annotations

import hmac
import operator
import os
import secrets
from hashlib import blake2b
from typing import Literal, SupportsIndex, get_args

import numpy as np
import numpy.typing as npt

from fedenc.errors import CipherError, KeyfileError
from fedenc.keys import keyfile
from fedenc.keys.keystream import Keystream

Policy = Literal["same", "client", "image"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

VERSION = 1
MASTER_BYTES = 32
MASTER_BITS = 8 * MASTER_BYTES
NONCE_BYTES = 16

_PER_IMAGE = np.dtype([("n0", "<u4"), ("id", "<i8"), ("n1", "<u4"), ("view", "<i8")])


def new_nonce() -> bytes:
    """16 random bytes: the public nonce of one upload, query batch or command-line run."""
    return secrets.token_bytes(NONCE_BYTES)


class KeyRing:
    """A 32-byte master key and the participant who uses it.

    ``repr`` and ``str`` show a fingerprint, never the master. Two key rings are equal when master
    and participant are.

    Raises:
        KeyfileError: the master is not 32 bytes or the participant is negative.
    """

    __slots__ = ("_master", "participant")

    def __init__(self, master: bytes, participant: int = 0) -> None:
        if not isinstance(master, bytes) or len(master) != MASTER_BYTES:
            found = f"{len(master)} bytes" if isinstance(master, bytes) else type(master).__name__
            raise KeyfileError(
                f"a master key is {MASTER_BYTES} bytes, found {found}; use KeyRing.generate()"
            )
        if not 0 <= participant < 2**63:
            raise KeyfileError(f"participant is {participant}, expected 0 or more")
        self._master = master
        self.participant = participant

    @classmethod
    def generate(cls, participant: int = 0) -> KeyRing:
        """A fresh key ring from the operating system's random generator."""
        return cls(secrets.token_bytes(MASTER_BYTES), participant)

    @classmethod
    def simulated(cls, seed: int | str, participant: int, *, shared: bool = False) -> KeyRing:
        """A key ring derived from a seed, for simulations only.

        Args:
            seed: ``encryption.seed``; whoever knows or guesses it has every key.
            participant: who the key ring is for.
            shared: one master for all participants (policy ``same``), not one for each.
        """
        owner = b"" if shared else _int64(participant)
        digest = blake2b(digest_size=MASTER_BYTES, person=b"fedenc/simulated")
        digest.update(_fields(_byte(VERSION), _tagged(seed), owner))
        return cls(digest.digest(), participant)

    def for_participant(self, participant: int) -> KeyRing:
        """The same master used by another participant."""
        return KeyRing(self._master, participant)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify the master and say nothing else about it."""
        return blake2b(key=self._master, digest_size=8, person=b"fedenc/print").hexdigest()

    def save(self, path: str | os.PathLike[str], passphrase: str | None = None) -> None:
        """Write a keyfile that only its owner can read (mode 0600); see ``fedenc.keys.keyfile``.

        Args:
            path: a file that must not exist yet.
            passphrase: encrypt the master with a key that scrypt derives from this.

        Raises:
            KeyfileError: the file exists or cannot be written.
        """
        keyfile.write(path, self._master, self.participant, self.fingerprint, passphrase)

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: str | None = None) -> KeyRing:
        """Read a keyfile.

        Raises:
            KeyfileError: missing, damaged, or the passphrase is missing or wrong.
        """
        return cls(*keyfile.read(path, passphrase))

    def keystream(
        self,
        *,
        method: str,
        policy: Policy,
        purpose: str,
        nonce: bytes,
        ids: npt.NDArray[np.int64],
        views: npt.NDArray[np.int64] | int = 0,
    ) -> Keystream:
        """The key material for a batch of N images.

        Args:
            method: the cipher's name; methods never share key material.
            policy: what shares a key.
            purpose: what the images are encrypted for, such as ``"train"`` or ``"query"``.
            nonce: the public nonce; exactly 16 bytes where the policy is ``image``, so that two
                uploads with one keyfile never share keystream.
            ids: integers (N,), participant-local. Under ``image`` no (id, view) may come twice.
            views: which ciphertext of each image: one number, or integers (N,).

        Raises:
            CipherError: an unknown policy, a nonce of another length, ids that are not a vector of
                integers, views of another shape, or a pair (id, view) that comes twice.
        """
        if policy not in POLICIES:
            raise CipherError(f"key policy is {policy!r}, expected one of {', '.join(POLICIES)}")
        ids = _integer_vector("ids", ids)
        views = _integer_vector("views", np.full(ids.size, views) if np.isscalar(views) else views)
        if views.size != ids.size:
            raise CipherError(f"views holds {views.size} numbers, ids {ids.size}; give one an id")
        if policy != "image":
            owner = b"" if policy == "same" else _int64(self.participant)
            digest = self._keyed(b"fedenc/subkey")
            digest.update(
                _fields(_byte(VERSION), method.encode(), purpose.encode(), owner, b"", b"", b"")
            )
            return Keystream([digest.digest()], ids.size)
        if len(nonce) != NONCE_BYTES:
            raise CipherError(
                f"nonce is {len(nonce)} bytes, policy 'image' needs {NONCE_BYTES}; draw one for "
                "each upload with fedenc.keys.new_nonce()"
            )
        _refuse_repeats(ids, views)
        common = self._keyed(b"fedenc/subkey")
        common.update(
            _fields(
                _byte(VERSION), method.encode(), purpose.encode(), _int64(self.participant), nonce
            )
        )
        return Keystream(_per_image(common, ids, views), ids.size)

    def secret(self, purpose: str, *context: int | bytes | str) -> bytes:
        """32 bytes for the participant's other private randomness: query ids, orders, nonces.

        Depends on master, participant, purpose, and the value and type of every piece of context.
        Never equals a subkey: subkeys are derived with another BLAKE2b personalisation.
        """
        digest = self._keyed(b"fedenc/secret")
        digest.update(
            _fields(
                _byte(VERSION), _int64(self.participant), purpose.encode(), *map(_tagged, context)
            )
        )
        return digest.digest()

    def _keyed(self, person: bytes) -> blake2b:
        return blake2b(key=self._master, digest_size=MASTER_BYTES, person=person)

    def __repr__(self) -> str:
        return f"KeyRing(fingerprint={self.fingerprint}, participant={self.participant})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyRing):
            return NotImplemented
        same_master = hmac.compare_digest(self._master, other._master)
        return same_master and self.participant == other.participant

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.participant))


def _per_image(
    common: blake2b, ids: npt.NDArray[np.int64], views: npt.NDArray[np.int64]
) -> list[bytes]:
    """One subkey per image: from the common fields, then the fields id and view."""
    tail = np.empty(ids.size, _PER_IMAGE)
    tail["n0"] = tail["n1"] = 8
    tail["id"], tail["view"] = ids, views
    packed, width = tail.tobytes(), _PER_IMAGE.itemsize
    subkeys = []
    for start in range(0, len(packed), width):
        digest = common.copy()
        digest.update(packed[start : start + width])
        subkeys.append(digest.digest())
    return subkeys


def _refuse_repeats(ids: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> None:
    order = np.lexsort((views, ids))
    pairs = np.stack((ids[order], views[order]))
    repeats = np.flatnonzero((pairs[:, 1:] == pairs[:, :-1]).all(axis=0))
    if repeats.size:
        found_id, found_view = pairs[:, repeats[0]]
        raise CipherError(
            f"id {found_id} with view {found_view} comes twice: two images would share a key; "
            "give every image of a batch its own id or view"
        )


def _integer_vector(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise CipherError(
            f"{name} is an array of {array.dtype} with shape {array.shape}, expected a vector of "
            "integers"
        )
    return array.astype(np.int64, copy=False)


def _fields(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(4, "little") + field for field in fields)


def _int64(value: SupportsIndex) -> bytes:
    return operator.index(value).to_bytes(8, "little", signed=True)


def _byte(value: int) -> bytes:
    return value.to_bytes(1, "little")


def _tagged(value: SupportsIndex | bytes | str) -> bytes:
    """A value's bytes after a letter for its type, so that 5, "5" and b"5" differ."""
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, str):
        return b"s" + value.encode()
    return b"i" + str(operator.index(value)).encode()
