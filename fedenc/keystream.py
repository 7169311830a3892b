"""From subkeys to unbiased bits, integers and permutations, for a whole batch of images at once.

Every subkey keys one ChaCha20 stream (RFC 8439; all-zero nonce, since a subkey is used once). A
draw takes the next bytes of every stream. How many it takes depends on its arguments alone, never
on what the bytes are, so streams stay aligned over the batch and a method's parts sit at fixed,
documented positions:

==========================  =====================================================================
draw                        bytes taken from every stream
==========================  =====================================================================
``bytes(n)``                n
``bits(n)``, ``masks(n)``   ⌈n / 8⌉, least significant bit first
``integers(bound, n)``      ``integer_bytes(bound, n)``: n little-endian words and the spare ones
                            that stand in for rejected words
``permutations(size, n)``   8·n·size: little-endian 64-bit words, ranked
==========================  =====================================================================

Where rejection finds no spare word left (probability below 1e-12 a draw, see ``spare_words``) or a
permutation's words tie (below size²/2⁶⁵), the affected image continues from a *refill* stream: the
same subkey under a nonce whose last eight bytes hold the draw's number, counted from 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms

from fedenc.errors import CipherError

SUBKEY_BYTES = 32
Bytes = npt.NDArray[np.uint8]

_WORD_TYPES: dict[int, np.dtype[Any]] = {size: np.dtype(f"<u{size}") for size in (1, 2, 4, 8)}


def word_bytes(bound: int) -> int:
    """The narrowest word (1, 2, 4 or 8 bytes) of which rejection wastes at most one in 32."""
    if not 1 <= bound <= 2**59:
        raise CipherError(f"bound is {bound}, expected 1 to 2**59")
    for size in (1, 2, 4):
        values = 256**size
        if bound <= values and 32 * (values % bound) <= values:
            return size
    return 8


def spare_words(bound: int, n: int) -> int:
    """How many words beyond n a draw of n integers takes to replace rejected ones.

    ``m + 8·⌈√m⌉ + 16`` with m = ⌈n·q / (1 − q)⌉, the spare words needed on average, where q (at
    most 1/32) is the rejected share of the words. By Chernoff's bound that does not suffice with
    probability below 1e-12, for every n. None are taken where the bound divides the words evenly.
    """
    values = 1 << 8 * word_bytes(bound)
    remainder = values % bound
    if remainder == 0 or n == 0:
        return 0
    mean = -(-n * remainder // (values - remainder))
    root = math.isqrt(mean - 1) + 1
    return mean + 8 * root + 16


def integer_bytes(bound: int, n: int) -> int:
    """Bytes that ``integers(bound, n)`` takes from every stream."""
    return word_bytes(bound) * (n + spare_words(bound, n))


# OpenSSL reads the first bytes of what it calls the nonce as the block counter: zero here.
_NONCE = bytes(16)


def _stream(subkey: bytes, nonce: bytes = _NONCE) -> CipherContext:
    return Cipher(algorithms.ChaCha20(subkey, nonce), mode=None).encryptor()


class Keystream:
    """The key material of a batch of N images: one stream an image, or one stream for all.

    ``count`` is N; ``streams`` is U: 1 where a policy gives the whole batch one key, else N. Every
    draw returns arrays whose first axis is U; an axis of length 1 broadcasts over the batch, so
    one key costs one key schedule however many images it serves.

    A keystream remembers how far it has been drawn. Ciphers draw from ``restart()`` of what they
    are given, so encrypting twice with one keystream gives the same bytes twice.

    Args:
        subkeys: U keys of 32 bytes.
        count: N, the number of images; U must be 1 or N.
    """

    __slots__ = ("_buffer", "_contexts", "_draws", "_subkeys", "count")

    def __init__(self, subkeys: Sequence[bytes], count: int) -> None:
        if len(subkeys) not in (1, count):
            raise CipherError(
                f"a keystream has one subkey or one an image; found {len(subkeys)} subkeys "
                f"for {count} images"
            )
        if any(len(key) != SUBKEY_BYTES for key in subkeys):
            raise CipherError(f"subkeys are {SUBKEY_BYTES} bytes each")
        self.count = count
        self._subkeys = subkeys
        self._contexts: list[CipherContext] | None = None
        self._buffer: Bytes = np.empty((len(subkeys), 0), np.uint8)
        self._draws = 0

    def __repr__(self) -> str:
        return f"Keystream(count={self.count}, streams={self.streams})"

    @property
    def streams(self) -> int:
        """U: how many distinct subkeys there are."""
        return len(self._subkeys)

    def restart(self) -> Keystream:
        """The same streams from their beginning; this keystream's own position stays."""
        return Keystream(self._subkeys, self.count)

    def part(self, start: int, stop: int) -> Keystream:
        """The streams of images start to stop (exclusive), from their beginning."""
        start, stop, _ = slice(start, stop).indices(self.count)
        subkeys = self._subkeys if self.streams == 1 else self._subkeys[start:stop]
        return Keystream(subkeys, max(stop - start, 0))

    def prefetch(self, n: int) -> None:
        """Have n bytes of every stream at hand in one go. Changes no drawn value, only speed."""
        missing = n - self._buffer.shape[1]
        if missing <= 0:
            return
        fresh = self._generate(missing)
        pending = self._buffer.shape[1]
        self._buffer = np.concatenate((self._buffer, fresh), axis=1) if pending else fresh

    def bytes(self, n: int) -> Bytes:
        """uint8 (U, n): the next n bytes."""
        self._draws += 1
        return self._take(n)

    def bits(self, n: int) -> Bytes:
        """uint8 (U, n) of zeros and ones: fair coins."""
        self._draws += 1
        packed = self._take(-(-n // 8))
        return np.unpackbits(packed, axis=1, count=n, bitorder="little")

    def masks(self, n: int) -> Bytes:
        """uint8 (U, n) of 0 and 255: ``bits``, each filling its byte."""
        bits = self.bits(n)
        return np.negative(bits, out=bits)

    def integers(self, bound: int, n: int) -> npt.NDArray[Any]:
        """Uniform integers in [0, bound), shape (U, n); uint8 where bound ≤ 256, else int64.

        A word w is rejected when it lies at or above the largest multiple of bound that a word
        can hold; else the integer is w mod bound. The k-th rejected word of an image is replaced
        by its k-th accepted spare word.
        """
        self._draws += 1
        size, spare = word_bytes(bound), spare_words(bound, n)
        words = self._words(size, n + spare)
        values = _remainder(words[:, :n], bound)
        if spare:
            self._replace_rejected(values, words, bound)
        return values.astype(np.uint8 if bound <= 256 else np.int64, copy=False)

    def permutations(self, size: int, n: int) -> npt.NDArray[np.int64]:
        """int64 (U, n, size): uniform permutations of range(size).

        Entry j holds the index of the word of rank j, so ``out[j] = in[permutation[j]]``.
        """
        self._draws += 1
        words = self._words(8, n * size).reshape(self.streams, n, size)
        order, tied = rank(words)
        for stream in map(int, np.flatnonzero(tied.any(axis=1))):
            refill = self._refill(stream)
            for index in np.flatnonzero(tied[stream]):
                again = True
                while again:
                    fresh = np.frombuffer(refill.update(bytes(8 * size)), "<u8")
                    (order[stream, index],), (again,) = rank(fresh.reshape(1, size))
        return order

    def _generate(self, n: int) -> Bytes:
        if self._contexts is None:
            self._contexts = [_stream(key) for key in self._subkeys]
        out = np.empty((self.streams, n), np.uint8)
        if out.size:
            zeros, flat = bytes(n), out.reshape(-1).data
            for context, start in zip(self._contexts, range(0, out.size, n), strict=True):
                context.update_into(zeros, flat[start : start + n])
        return out

    def _take(self, n: int) -> Bytes:
        self.prefetch(n)
        taken, self._buffer = self._buffer[:, :n], self._buffer[:, n:]
        return taken

    def _words(self, size: int, n: int) -> npt.NDArray[Any]:
        taken = self._take(size * n)
        return taken if size == 1 else np.ascontiguousarray(taken).view(_WORD_TYPES[size])

    def _replace_rejected(
        self, values: npt.NDArray[Any], words: npt.NDArray[Any], bound: int
    ) -> None:
        """Where one of the first n of the words (U, n + s) is rejected, overwrite its remainder in
        values (U, n) with that of an accepted one of the s spare words."""
        streams, n = values.shape
        limit = (1 << 8 * words.itemsize) // bound * bound
        spare = words[:, n:]
        where = _scattered((words[:, :n] >= limit).reshape(-1))
        first = np.searchsorted(where, np.arange(streams + 1) * n)
        demand = np.diff(first)
        accepted = spare < limit
        supply = np.count_nonzero(accepted, axis=1)
        offset = np.cumsum(supply) - supply
        flat = values.reshape(-1)  # a view: values is contiguous
        if (demand <= supply).all():
            # rejected word i of all is number i − first of its stream, and so is its substitute
            chosen = np.arange(where.size)
            chosen += np.repeat(offset - first[:-1], demand)
            flat[where] = _remainder(spare[accepted][chosen], bound)
            return
        for stream in range(streams):
            holes = where[first[stream] : first[stream + 1]]
            found = spare[stream][accepted[stream]]
            if found.size < holes.size:
                more = self._refill_words(stream, words.dtype, limit, holes.size - found.size)
                found = np.concatenate((found, more))
            flat[holes] = _remainder(found[: holes.size], bound)

    def _refill(self, stream: int) -> CipherContext:
        return _stream(self._subkeys[stream], bytes(8) + self._draws.to_bytes(8, "little"))

    def _refill_words(
        self, stream: int, dtype: np.dtype[Any], limit: int, n: int
    ) -> npt.NDArray[Any]:
        """The first n accepted words of a stream's refill for the current draw."""
        refill = self._refill(stream)
        found = np.empty(0, dtype)
        while found.size < n:
            fresh = np.frombuffer(refill.update(bytes(64 * dtype.itemsize)), dtype)
            found = np.concatenate((found, fresh[fresh < limit]))
        return found[:n]


def _remainder(words: npt.NDArray[Any], bound: int) -> npt.NDArray[Any]:
    """``words % bound`` in new, contiguous memory."""
    remainders: npt.NDArray[Any]
    if bound & (bound - 1) == 0:
        remainders = np.bitwise_and(words, bound - 1, order="C")
    else:  # numpy divides with SIMD, but its remainder does not
        remainders = np.floor_divide(words, bound, order="C")
        remainders *= words.dtype.type(bound)
        np.subtract(words, remainders, out=remainders)
    return remainders


def _scattered(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """``np.flatnonzero`` of a vector where few are true, such as one in 64: it first
    looks at groups of eight and so spares the processor unpredictable branches."""
    whole = mask.size // 8 * 8
    groups = mask[:whole].view(np.uint64)
    found = np.flatnonzero(groups != 0)
    inside = np.flatnonzero(groups[found].view(np.bool_))
    where: npt.NDArray[np.int64] = found[inside >> 3]
    where <<= 3
    inside &= 7
    where += inside
    if whole == mask.size:
        return where
    return np.concatenate((where, whole + np.flatnonzero(mask[whole:])))


def rank(words: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Order words (..., size), of two or more axes, ascending along the last axis.

    Returns:
        The int64 index of the word of every rank, same shape, and a bool (...) that says where
        two words are equal, so that the order is not determined.
    """
    size = words.shape[-1]
    low = np.uint64((1 << max(size - 1, 0).bit_length()) - 1)
    # Sorting words that carry their index in the low bits is several times faster than argsort.
    # It ranks by the high bits; where those tie, the full words decide.
    keyed = words & ~low
    keyed |= np.arange(size, dtype=np.uint64)
    keyed.sort(axis=-1)
    tied = np.asarray(((keyed[..., 1:] ^ keyed[..., :-1]) <= low).any(axis=-1))
    order = (keyed & low).astype(np.int64)
    if tied.any():
        close = words[tied]
        exact = np.argsort(close, axis=-1, kind="stable")
        ordered = np.take_along_axis(close, exact, axis=-1)
        order[tied] = exact
        tied[tied] = (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)
    return order, tied
