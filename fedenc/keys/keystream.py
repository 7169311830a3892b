"""From subkeys to unbiased bits, integers and permutations, for a whole batch of images at once.

Every subkey keys one ChaCha20 stream (RFC 8439; all-zero nonce, since a subkey is used once). A
draw takes the next bytes of every stream. How many it takes depends on its arguments alone, never
on the values of the bytes. So the streams of a batch stay aligned, and the parts of a method's key
are at fixed, documented positions:

==========================  =====================================================================
draw                        bytes taken from every stream
==========================  =====================================================================
``bytes(n)``                n
``bits(n)``, ``masks(n)``   ⌈n / 8⌉, least significant bit first
``integers(bound, n)``      ``integer_bytes(bound, n)``: little-endian words of one or four integers
                            each, then the spare words that replace rejected ones
``permutations(size, n)``   8·n·size: little-endian 64-bit words, ranked
==========================  =====================================================================

If more words are rejected than there are spare ones (probability below 1e-12, see
``_words_needed``), or a permutation's words tie (below size²/2⁶⁵), that image takes further words
from a *refill* stream: the same subkey under a nonce whose last eight bytes hold the draw's number,
counted from 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms

from fedenc.errors import CipherError

SUBKEY_BYTES = 32
Bytes = npt.NDArray[np.uint8]

_WORD_TYPES: dict[int, np.dtype[Any]] = {size: np.dtype(f"<u{size}") for size in (1, 2, 4, 8)}


@cache
def packing(bound: int) -> tuple[int, int]:
    """How integers below bound are drawn: bytes of a word (1, 2, 4 or 8), and integers from each.

    Where bound divides 256, a byte yields one integer. For other bounds up to 256 a word of four
    bytes yields four integers: it takes as many bytes as one byte each, but is rarely rejected (for
    bound 6, one word in 3.4 million; of single bytes, one in 64). Where more than one such word in
    32 would be rejected, and for bounds above 256, a word yields one integer, and has two, four or
    eight bytes: the fewest with which at most one word in 32 is rejected.
    """
    if not 1 <= bound <= 2**59:
        raise CipherError(f"bound is {bound}, expected 1 to 2**59")
    if 256 % bound == 0:
        return 1, 1
    for size, integers in ((4, 4), (2, 1), (4, 1)):
        values, group = 256**size, bound**integers
        if group <= values and 32 * (values % group) <= values:
            return size, integers
    return 8, 1


def _words_needed(bound: int, n: int) -> tuple[int, int]:
    """How many words a draw of n integers takes: m that yield them, and spare ones.

    Of the m words a share q (at most 1/32) is rejected on average, and replacing them takes
    s = ⌈m·q / (1 − q)⌉ words. A draw takes ``s + 8·⌈√s⌉ + 16`` spare words. By Chernoff's bound the
    probability that these are too few is below 1e-12 for every m. Where no word can be rejected, no
    spare words are taken.
    """
    size, integers = packing(bound)
    words, values = -(-n // integers), 256**size
    rejected = values % bound**integers
    if rejected == 0 or n == 0:
        return words, 0
    mean = -(-words * rejected // (values - rejected))
    return words, mean + 8 * (math.isqrt(mean - 1) + 1) + 16


def integer_bytes(bound: int, n: int) -> int:
    """Bytes that ``integers(bound, n)`` takes from every stream."""
    return packing(bound)[0] * sum(_words_needed(bound, n))


# OpenSSL reads the first bytes of what it calls the nonce as the block counter: zero here.
_NONCE = bytes(16)


def _stream(subkey: bytes, nonce: bytes = _NONCE) -> CipherContext:
    return Cipher(algorithms.ChaCha20(subkey, nonce), mode=None).encryptor()


class Keystream:
    """The key material of a batch of N images: one stream per image, or one stream for all.

    ``count`` is N; ``streams`` is U: 1 where a policy gives the whole batch one key, else N. Every
    draw returns arrays whose first axis is U; an axis of length 1 broadcasts over the batch, so a
    key for the whole batch is derived once, however many images there are.

    A keystream remembers how far it has been drawn. Ciphers draw from a ``part`` of what they are
    given, so encrypting twice with one keystream gives the same bytes twice.

    Args:
        subkeys: U keys of 32 bytes.
        count: N, the number of images; U must be 1 or N.
    """

    __slots__ = ("_buffer", "_contexts", "_draws", "_subkeys", "count")

    def __init__(self, subkeys: Sequence[bytes], count: int) -> None:
        if len(subkeys) not in (1, count):
            raise CipherError(
                f"a keystream has one subkey, or one per image; found {len(subkeys)} subkeys "
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

    def part(self, start: int, stop: int) -> Keystream:
        """The streams of images start to stop (exclusive), from their beginning."""
        start, stop, _ = slice(start, stop).indices(self.count)
        subkeys = self._subkeys if self.streams == 1 else self._subkeys[start:stop]
        return Keystream(subkeys, max(stop - start, 0))

    def prefetch(self, n: int) -> None:
        """Generate the next n bytes of every stream in one call: for speed; changes no value."""
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
        """uint8 (U, n) of zeros and ones, each with probability 1/2."""
        self._draws += 1
        packed = self._take(-(-n // 8))
        return np.unpackbits(packed, axis=1, count=n, bitorder="little")

    def masks(self, n: int) -> Bytes:
        """uint8 (U, n) of 0 and 255: as ``bits``, with 255 for 1."""
        bits = self.bits(n)
        return np.negative(bits, out=bits)

    def integers(self, bound: int, n: int) -> npt.NDArray[Any]:
        """Uniform integers in [0, bound), shape (U, n); uint8 where bound ≤ 256, else int64.

        A word yields a group of one integer or four, see ``packing``: a number below g = bound or
        bound⁴. Of a word's v values, those at or above g·⌊v/g⌋ are rejected; any other, divided by
        ⌊v/g⌋ and rounded down, is the group. The k-th rejected word of an image is replaced by its
        k-th accepted spare word. Groups of four are split into quotients by bound² and then the
        remainders; these into quotients by bound and then the remainders.
        """
        self._draws += 1
        size, together = packing(bound)
        needed, spare = _words_needed(bound, n)
        words = self._words(size, needed + spare)
        limit = bound**together
        groups = _groups(words[:, :needed], limit)
        if spare and groups.max(initial=0) >= limit:
            self._replace_rejected(groups, words[:, needed:], limit)
        if together == 4:
            return _split(_split(groups, bound**2, -(-n // 2)), bound, n)
        return groups.astype(np.uint8 if bound <= 256 else np.int64, copy=False)

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
        words = self._take(size * n).view(_WORD_TYPES[size])
        return words if words.flags.aligned else words.copy()

    def _replace_rejected(
        self, groups: npt.NDArray[Any], spare: npt.NDArray[Any], bound: int
    ) -> None:
        """Overwrite groups (U, m) that came from rejected words, which are those not below bound,
        with groups from accepted ones of the spare words (U, s)."""
        streams, n = groups.shape
        where = np.flatnonzero(groups >= bound)
        first = np.searchsorted(where, np.arange(streams + 1) * n)
        demand = np.diff(first)
        substitutes = _groups(spare, bound)
        accepted = substitutes < bound
        supply = np.count_nonzero(accepted, axis=1)
        flat = groups.reshape(-1)  # a view: groups are contiguous
        if (demand <= supply).all():
            # of all rejected words, word i is number i − first in its stream; so is its substitute
            chosen = np.arange(where.size)
            chosen += np.repeat(np.cumsum(supply) - supply - first[:-1], demand)
            flat[where] = substitutes[accepted][chosen]
            return
        for stream in range(streams):
            holes = where[first[stream] : first[stream + 1]]
            found = substitutes[stream][accepted[stream]]
            if found.size < holes.size:
                more = self._refill_groups(stream, spare.dtype, bound, holes.size - found.size)
                found = np.concatenate((found, more))
            flat[holes] = found[: holes.size]

    def _refill(self, stream: int) -> CipherContext:
        return _stream(self._subkeys[stream], bytes(8) + self._draws.to_bytes(8, "little"))

    def _refill_groups(
        self, stream: int, dtype: np.dtype[Any], bound: int, n: int
    ) -> npt.NDArray[Any]:
        """The first n accepted groups of a stream's refill for the current draw."""
        refill = self._refill(stream)
        found = np.empty(0, dtype)
        while found.size < n:
            fresh = _groups(np.frombuffer(refill.update(bytes(64 * dtype.itemsize)), dtype), bound)
            found = np.concatenate((found, fresh[fresh < bound]))
        return found[:n]


def _groups(words: npt.NDArray[Any], bound: int) -> npt.NDArray[Any]:
    """Words divided by how often bound fits into their range, in the narrowest type, contiguous.

    Accepted words become numbers below bound, all equally often; rejected ones become bound or
    more.
    """
    if bound == 1:  # a byte would be divided by 256, which is no uint8
        return np.zeros(words.shape, np.uint8)
    largest = int(np.iinfo(words.dtype).max)
    share = (largest + 1) // bound
    groups: npt.NDArray[Any] = np.empty(words.shape, np.min_scalar_type(largest // share))
    np.floor_divide(words, share, out=groups, casting="unsafe")
    return groups


def _split(groups: npt.NDArray[Any], bound: int, n: int) -> npt.NDArray[Any]:
    """From groups (U, m) below bound²: quotients by bound, then as many remainders as make n a
    stream; (U, n), in the narrowest type. The bound is at most 255², and not 256."""
    streams, m = groups.shape
    parts = np.empty((streams, n), np.min_scalar_type(bound - 1))
    quotients, remainders, few = parts[:, :m], parts[:, m:], n - m
    np.floor_divide(groups, bound, out=quotients, casting="unsafe")
    # NumPy divides with SIMD, but has no such remainder. The products may overflow; as both steps
    # are modulo the same power of two, the differences are right.
    np.multiply(quotients[:, :few], bound, out=remainders)
    np.subtract(groups[:, :few], remainders, out=remainders, casting="unsafe")
    return parts


def rank(words: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Order words (..., size), of two or more axes, ascending along the last axis.

    Returns:
        The int64 index of the word of every rank, same shape, and a bool (...) that says where
        two words are equal, so that the order is not determined.
    """
    size = words.shape[-1]
    low = np.uint64((1 << max(size - 1, 0).bit_length()) - 1)
    # Faster than argsort: sort words whose low bits are replaced by their index. This ranks them by
    # their high bits; where those tie, the full words decide.
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
