"""Golden vectors: bytes that may never change, or old ciphertexts would not decrypt.

A vector is the SHA-256 (first 16 hex digits) of two encrypted images. If a test fails, the code is
wrong, not the table; only a new version of a derivation may add vectors beside these.
"""

import hashlib

import numpy as np
import pytest
import torch

from fedenc.ciphers import make
from fedenc.keys import KeyRing, Policy

RING = KeyRing(bytes(range(32)), 5)
PLAIN = torch.arange(2 * 3 * 32 * 48, dtype=torch.int64).mul(7).remainder(251).to(torch.uint8)

VECTORS: list[tuple[str, dict, Policy, str]] = [
    ("none", {}, "image", "508634b4e39d5294"),
    ("pixel", {}, "image", "4c8e7af2a7159d18"),
    ("pixel", {}, "client", "ffd7c3bb97fb0dd9"),
    ("pixel", {}, "same", "d76232b0cf5b3c9e"),
    ("pixel", {"color_shuffle": False}, "image", "cb606899cbb6f73f"),
]


@pytest.mark.parametrize(("name", "params", "policy", "digest"), VECTORS)
def test_golden_vectors(name: str, params: dict, policy: Policy, digest: str) -> None:
    keys = RING.keystream(
        method=name,
        policy=policy,
        purpose="train",
        nonce=bytes(range(16)),
        ids=np.array([3, 2**33]),
        views=np.array([0, 1]),
    )
    found = make(name, **params).encrypt(PLAIN.reshape(2, 3, 32, 48), keys)
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16] == digest
