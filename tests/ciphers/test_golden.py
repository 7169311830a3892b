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
    ("etc", {}, "image", "97d73cc7b84302fa"),
    ("etc", {"block_size": 8}, "image", "445710faa9e0a2fc"),
    ("etc", {"color_shuffle": False}, "image", "9c88fd3766ad5b7b"),
    ("etc", {}, "same", "b5bf4314902ca327"),
    ("etc-gray", {}, "image", "49f54aa1d88ab052"),
    ("etc-gray", {"subsampling": "4:2:0"}, "image", "ffa9380cc188a38a"),
    ("etc-gray", {}, "same", "8224015280b22afa"),
    ("le", {}, "image", "f67a1e2a59802627"),
    ("le", {"compat": "icce2018"}, "image", "c79773e66ec8d0da"),
    ("le", {}, "same", "d31c0be39cee9794"),
    ("ele", {}, "image", "28f04ef8ce8d1ac0"),
    ("ele", {}, "same", "9129fd0b38394875"),
    ("logistic-rc4", {}, "image", "af50decd56393472"),
    ("logistic-rc4", {"drop": 256}, "image", "4eb999a477a921f8"),
    ("logistic-rc4", {}, "same", "52e653d16c07548e"),
    ("scramble", {}, "image", "04ba09f27fd785e6"),
    ("scramble", {"block_size": 16}, "image", "f1bac9e32983c27a"),
    ("scramble", {}, "same", "43fa3ab78e929113"),
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
