"""Golden vectors: bytes that may never change, or old ciphertexts would not decrypt.

A vector is the SHA-256 (first 16 hex digits) of two encrypted images. If a test fails, the code is
wrong, not the table; other bytes need another ``VERSION`` in ``fedenc.ciphers.files.manifest``.
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
    ("pixel", {}, "image", "3b2da7156e3b28ab"),
    ("pixel", {}, "client", "00594905adae3107"),
    ("pixel", {}, "same", "f80edc7c1eb80f33"),
    ("pixel", {"color_shuffle": False}, "image", "cb606899cbb6f73f"),
    ("etc", {}, "image", "8700cff7c69ce1a5"),
    ("etc", {"block_size": 8}, "image", "dca860c690fd5148"),
    ("etc", {"color_shuffle": False}, "image", "c6572d85bf4159fd"),
    ("etc", {}, "same", "ab939a715427c46c"),
    ("etc-gray", {}, "image", "166e6143f2edc091"),
    ("etc-gray", {"subsampling": "4:2:0"}, "image", "019f64ff4051f7ff"),
    ("etc-gray", {}, "same", "34e21ef80569750e"),
    ("le", {}, "image", "f67a1e2a59802627"),
    ("le", {"compat": "icce2018"}, "image", "c79773e66ec8d0da"),
    ("le", {}, "same", "d31c0be39cee9794"),
    ("ele", {}, "image", "28f04ef8ce8d1ac0"),
    ("ele", {}, "same", "9129fd0b38394875"),
    ("logistic-rc4", {}, "image", "40d28c26b396691f"),
    ("logistic-rc4", {"drop": 256}, "image", "ac83fed2fcdad44e"),
    ("logistic-rc4", {}, "same", "aada39a01a5e4c5a"),
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
