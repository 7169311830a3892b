"""RC4 against RFC 6229, the logistic map against its definition, and what the pair does."""

import numpy as np
import pytest
import torch
from scipy import stats

from fedenc.ciphers import make
from fedenc.ciphers.logistic_rc4 import DROP_LIMIT, logistic_orbit, rc4
from fedenc.errors import CipherError
from fedenc.keys import KeyRing

# RFC 6229, 128-bit key 0x0102030405060708090a0b0c0d0e0f10: offset, 16 bytes of keystream
RFC_6229_128 = [
    (0, "9ac7cc9a609d1ef7b2932899cde41b97"),
    (16, "5248c4959014126a6e8a84f11d1a9e1c"),
    (240, "065902e4b620f6cc36c8589f66432f2b"),
    (1008, "e7a72574f8782ae26aabcf9ebcd66065"),
    (1536, "ffa0b514647ec04f6306b892ae661181"),
]


def reference_rc4(key: bytes, length: int) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for _ in range(length):
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(state[(state[i] + state[j]) % 256])
    return bytes(out)


def test_rc4_matches_rfc_6229() -> None:
    key = np.arange(1, 17, dtype=np.uint8)[None]
    reference = reference_rc4(key.tobytes(), 4112)
    assert rc4(key, 4112)[0].tobytes() == reference
    for offset, expected in RFC_6229_128:
        assert reference[offset : offset + 16].hex() == expected
        assert rc4(key, 16, drop=offset)[0].tobytes().hex() == expected


def test_rc4_of_many_keys_is_rc4_of_each() -> None:
    keys = np.random.default_rng(0).integers(0, 256, (5, 16)).astype(np.uint8)
    for row, key in zip(rc4(keys, 100), keys, strict=True):
        assert row.tobytes() == reference_rc4(key.tobytes(), 100)
    assert rc4(keys[:0], 100).shape == (0, 100)


def test_orbits_follow_the_map() -> None:
    start, rate = np.array([0.1, 0.7, 0.5]), np.array([3.6, 3.99, 4.0])
    found = logistic_orbit(start, rate, 20)
    for row, x, r in zip(found, start.tolist(), rate.tolist(), strict=True):
        for step in range(120):
            x = r * x * (1 - x)
            if step >= 100:
                assert row[step - 100] == x


def test_ciphertext_looks_like_noise_under_image_keys_only() -> None:
    cipher = make("logistic-rc4")
    plain = torch.full((100, 3, 32, 32), 7, dtype=torch.uint8)
    ring = KeyRing(bytes(32))
    for policy in ("image", "same"):
        keys = ring.keystream(
            method=cipher.name, policy=policy, purpose="t", nonce=bytes(16), ids=np.arange(100)
        )
        found = cipher.encrypt(plain, keys)
        pvalue = stats.chisquare(torch.bincount(found.flatten(), minlength=256)).pvalue
        assert (pvalue > 1e-4) == (policy == "image")


def test_key_parts_follow_the_documented_draws() -> None:
    cipher, ring = make("logistic-rc4", drop=5), KeyRing(bytes(32))
    plain = torch.arange(3 * 20, dtype=torch.uint8).reshape(1, 3, 4, 5)
    request = {"method": cipher.name, "purpose": "t", "nonce": bytes(16), "ids": np.arange(1)}
    found = cipher.encrypt(plain, ring.keystream(policy="image", **request))
    keys = ring.keystream(policy="image", **request)
    x, r = (int(seed) for seed in keys.integers(2**52, 2)[0])
    start, rate = (x + 0.5) / 2**52, 3.57 + (4.0 - 3.57) * (r / 2**52)
    orbit = []
    for _ in range(120):
        start = rate * start * (1 - start)
        orbit.append(start)
    order = sorted(range(20), key=orbit[100:].__getitem__)
    pad = reference_rc4(keys.bytes(16).tobytes(), 65)[5:]
    moved = plain.reshape(3, 20)[:, order].reshape(-1)
    assert found.flatten().tolist() == [int(p) ^ k for p, k in zip(moved, pad, strict=True)]


def test_missing_rc4_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    from fedenc.errors import CipherError

    def refuse(*_: object, **__: object) -> None:
        raise UnsupportedAlgorithm("no")

    monkeypatch.setattr("fedenc.ciphers.logistic_rc4.StreamCipher", refuse)
    with pytest.raises(CipherError, match="logistic-rc4 needs RC4"):
        rc4(np.zeros((1, 16), np.uint8), 4)


@pytest.mark.parametrize("drop", [-1, DROP_LIMIT + 1, 10**9, True, 1.5])
def test_what_is_dropped_is_bounded(drop: object) -> None:
    """For every image so many bytes are made: a manifest could ask for all memory there is."""
    with pytest.raises(CipherError, match="drop is"):
        make("logistic-rc4", drop=drop)  # type: ignore[arg-type]
    assert make("logistic-rc4", drop=DROP_LIMIT).params() == {"drop": DROP_LIMIT}
