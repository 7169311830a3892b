"""Draws: documented positions, unbiased values, and the rare paths made common."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedenc.errors import CipherError
from fedenc.keys import keystream as module
from fedenc.keys.keystream import Keystream, integer_bytes, packing, rank

SUBKEYS = [bytes([i]) * 32 for i in range(8)]


def batch(count: int = 8) -> Keystream:
    return Keystream([i.to_bytes(32, "big") for i in range(count)], count)


def quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, shift in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[x] = (state[x] + state[y]) & 0xFFFFFFFF
        mixed = state[z] ^ state[x]
        state[z] = (mixed << shift | mixed >> (32 - shift)) & 0xFFFFFFFF


def chacha20(key: bytes, n: int, nonce: bytes = bytes(12)) -> bytes:
    """RFC 8439 section 2.4, counter from 0, in plain Python."""
    out = b""
    for counter in range(-(-n // 64)):
        raw = b"expand 32-byte k" + key + counter.to_bytes(4, "little") + nonce
        start = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, 64, 4)]
        state = start.copy()
        for _ in range(10):
            for i in range(4):
                quarter_round(state, i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter_round(state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        out += b"".join(
            ((x + y) & 0xFFFFFFFF).to_bytes(4, "little") for x, y in zip(start, state, strict=True)
        )
    return out[:n]


def test_reference_cipher_matches_rfc_8439() -> None:
    # appendix A.1, test vector 1
    assert chacha20(bytes(32), 16).hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_bytes_are_consecutive_chacha20() -> None:
    stream = Keystream(SUBKEYS, 8)
    drawn = np.concatenate([stream.bytes(n) for n in (5, 0, 130, 64, 1)], axis=1)
    for key, row in zip(SUBKEYS, drawn, strict=True):
        assert row.tobytes() == chacha20(key, 200)


def test_bits_come_least_significant_first() -> None:
    raw, stream = batch().bytes(5), batch()
    bits = stream.bits(19)
    assert bits.shape == (8, 19)
    for i in range(19):
        assert np.array_equal(bits[:, i], raw[:, i // 8] >> (i % 8) & 1)
    assert np.array_equal(stream.bytes(2), raw[:, 3:])  # the last byte of the bits is used up


def test_masks_are_bits_that_fill_bytes() -> None:
    assert np.array_equal(batch().masks(19), 255 * batch().bits(19))


def reference_integers(raw: bytes, bound: int, n: int) -> list[int]:
    size, together = packing(bound)
    words = [int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)]
    group = bound**together
    share = 256**size // group
    needed = -(-n // together)
    spare = iter([word for word in words[needed:] if word < group * share])
    accepted = (word if word < group * share else next(spare) for word in words[:needed])
    values = [word // share for word in accepted]
    while together > 1:
        together //= 2
        divided = [divmod(value, bound**together) for value in values]
        values = [high for high, _ in divided] + [low for _, low in divided]
        values = values[: -(-n // together)]
    return values


@given(
    st.one_of(st.integers(1, 300), st.integers(2**15, 2**17), st.integers(2**31, 2**45)),
    st.integers(0, 150),
)
def test_integers_match_the_definition(bound: int, n: int) -> None:
    found = batch(3).integers(bound, n)
    assert batch(0).integers(bound, n).shape == (0, n)
    raw = batch(3).bytes(integer_bytes(bound, n))
    assert found.shape == (3, n)
    assert found.dtype == (np.uint8 if bound <= 256 else np.int64)
    for row, source in zip(found, raw, strict=True):
        assert row.tolist() == reference_integers(source.tobytes(), bound, n)


@pytest.mark.parametrize("bound", [2, 3, 6, 8, 96, 129, 250])
def test_integers_are_uniform(bound: int) -> None:
    values = batch(64).integers(bound, 4000)
    counts = np.bincount(values.reshape(-1), minlength=bound)
    assert counts.size == bound
    assert stats.chisquare(counts).pvalue > 1e-6


def test_bits_are_balanced() -> None:
    ones = batch(1000).bits(4096).sum()
    assert abs(ones - 2_048_000) < 6 * math.sqrt(4_096_000) / 2


def test_every_permutation_is_equally_likely() -> None:
    found = batch(400).permutations(4, 60).reshape(-1, 4)
    counts = Counter(map(tuple, found.tolist()))
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-6


@given(st.integers(0, 300), st.integers(0, 5), st.integers(0, 4))
def test_permutations_rank_consecutive_words(size: int, n: int, count: int) -> None:
    found = batch(count).permutations(size, n)
    raw = np.ascontiguousarray(batch(count).bytes(8 * size * n)).view("<u8")
    assert found.shape == (count, n, size)
    for i in range(count):
        for k in range(n):
            words = raw[i].tolist()[k * size : (k + 1) * size]
            assert found[i, k].tolist() == sorted(range(size), key=words.__getitem__)


def test_draws_have_the_documented_lengths() -> None:
    stream, at = batch(), 0
    lengths = [
        (lambda: stream.bits(13), 2),
        (lambda: stream.integers(6, 100), integer_bytes(6, 100)),
        (lambda: stream.permutations(7, 3), 168),
        (lambda: stream.integers(8, 9), 9),
    ]
    raw = batch().bytes(600)
    for draw, length in lengths:
        draw()
        at += length
        assert np.array_equal(stream.bytes(1), raw[:, at : at + 1])
        at += 1


def test_prefetch_changes_nothing() -> None:
    def draws(stream: Keystream) -> list[np.ndarray]:
        return [stream.bits(77), stream.integers(6, 50), stream.permutations(5, 2)]

    for ahead in (0, 1, 60, 10_000):
        stream = batch()
        stream.prefetch(ahead)
        for found, expected in zip(draws(stream), draws(batch()), strict=True):
            assert np.array_equal(found, expected)


def test_a_part_starts_over() -> None:
    stream = batch()
    first = stream.bytes(10)
    assert np.array_equal(stream.part(0, stream.count).bytes(10), first)
    assert np.array_equal(stream.part(2, 5).bytes(10), first[2:5])
    assert np.array_equal(stream.part(6, 99).bytes(10), first[6:])
    assert not np.array_equal(stream.bytes(10), first)
    shared = Keystream(SUBKEYS[:1], 5)
    assert (shared.part(1, 3).count, shared.part(1, 3).streams) == (2, 1)


def test_packing_and_spare_words_keep_their_promises() -> None:
    for bound in [*range(1, 400), 2**16 - 1, 2**16, 2**16 + 1, 10**6, 2**32 + 1, 2**59]:
        size, together = packing(bound)
        values, group = 256**size, bound**together
        assert group <= values
        share = values % group / values
        assert share <= 1 / 32
        for n in (0, 1, 10, 1024, 50_176, 10**6, 10**8):
            needed = -(-n // together)
            spare = integer_bytes(bound, n) // size - needed
            if share == 0 or n == 0:
                assert spare == 0
                continue
            # Chernoff: P(Binomial(needed + spare, share) > spare)
            mean = (needed + spare) * share
            excess = spare / mean - 1
            assert mean * ((1 + excess) * math.log(1 + excess) - excess) > math.log(1e12)


# one word in 45, 89, 33 and 200 is rejected; of 63536 each word yields one integer, else four
@pytest.mark.parametrize(("bound", "n"), [(100, 4000), (96, 901), (63_536, 900), (215, 4002)])
def test_rejected_words_are_replaced_in_order(bound: int, n: int) -> None:
    raw = batch(3).bytes(integer_bytes(bound, n))
    for row, source in zip(batch(3).integers(bound, n), raw, strict=True):
        assert row.tolist() == reference_integers(source.tobytes(), bound, n)


# as many spare words as are needed on average: some streams lack some, some do not
@pytest.mark.parametrize(
    ("bound", "n", "spare"), [(100, 4000, 22), (63_536, 4000, 126), (96, 4000, 11)]
)
def test_exhausted_spare_words_continue_from_a_refill(
    monkeypatch: pytest.MonkeyPatch, bound: int, n: int, spare: int
) -> None:
    size, together = packing(bound)
    needed = n // together
    monkeypatch.setattr(module, "_words_needed", lambda bound, n: (needed, spare))
    stream = Keystream(SUBKEYS, 8)
    stream.bytes(1)
    found = stream.integers(bound, n)
    taken = size * (needed + spare)
    lacking = []
    for key, row in zip(SUBKEYS, found, strict=True):
        raw = chacha20(key, 1 + taken)[1:]
        words = np.frombuffer(raw, f"<u{size}")
        rejected = np.count_nonzero(words >= 256**size - 256**size % bound**together)
        lacking.append(rejected > spare)
        refill = chacha20(key, 2048, nonce=bytes(4) + (2).to_bytes(8, "little"))
        assert row.tolist() == reference_integers(raw + refill, bound, n)
    assert len(set(lacking)) == 2
    assert (found < bound).all()


def test_tied_permutations_are_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With words of three distinct values, ties are the rule; redraws use full words."""
    true_rank = rank
    seen: list[int] = []

    def coarse(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(words.shape[0])
        return true_rank(words if words.shape[0] == 1 else words & np.uint64(3))

    monkeypatch.setattr(module, "rank", coarse)
    stream = Keystream(SUBKEYS, 8)
    found = stream.permutations(5, 3)
    assert seen == [8] + [1] * 24  # five words of four values always tie
    for key, rows in zip(SUBKEYS, found, strict=True):
        refill = np.frombuffer(
            chacha20(key, 120, nonce=bytes(4) + (1).to_bytes(8, "little")), "<u8"
        ).reshape(3, 5)
        assert np.array_equal(rows, np.argsort(refill, axis=1))


@given(st.lists(st.integers(0, 40), min_size=0, max_size=40), st.integers(0, 60))
def test_rank_orders_words_that_differ_only_in_low_bits(values: list[int], shift: int) -> None:
    words = (np.array([values], np.uint64) << np.uint64(shift % 58)).astype(np.uint64)
    order, tied = rank(words)
    assert tied[0] == (len(set(values)) < len(values))
    assert sorted(order[0].tolist()) == list(range(len(values)))
    assert [values[i] for i in order[0]] == sorted(values)


def test_misuse_is_refused() -> None:
    with pytest.raises(CipherError, match="found 2 subkeys for 3 images"):
        Keystream(SUBKEYS[:2], 3)
    with pytest.raises(CipherError, match="32 bytes"):
        Keystream([b"short"], 1)
    for bound in (0, -3, 2**64 - 1):
        with pytest.raises(CipherError, match=f"bound is {bound}"):
            batch().integers(bound, 1)
