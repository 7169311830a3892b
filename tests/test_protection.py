"""Protections: one public side whatever the kind, and what leaves is what the kind says."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from fedenc import ciphers
from fedenc.keys import KeyRing, Policy
from fedenc.protection import Context, Keyed, Network, Plain, Protection, plain_fits
from fedenc.shard import UNPROTECTED
from fedenc.transformation.bundle import build, save_transformation

RING = KeyRing(bytes(range(32)), 3)
IMAGES = torch.randint(
    256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def context(*, independent: bool = False, purpose: str = "train", first: int = 0) -> Context:
    return Context(purpose, bytes(16), np.arange(first, first + 5), independent=independent)


@pytest.mark.parametrize("name", ciphers.names())
@pytest.mark.parametrize("policy", get_args(Policy))
def test_a_keyed_protection_is_its_cipher_under_the_ring(name: str, policy: Policy) -> None:
    cipher = ciphers.make(name)
    keyed = Keyed(cipher, RING, policy)
    stream = RING.keystream(
        method=name, policy=policy, purpose="train", nonce=bytes(16), ids=np.arange(5)
    )
    found = keyed.protect(IMAGES, context())
    assert torch.equal(found, cipher.encrypt(IMAGES, stream))
    assert tuple(found.shape[1:]) == keyed.output_shape(3, 8, 8)
    assert (keyed.name, keyed.params(), keyed.policy) == (name, cipher.params(), policy)
    assert keyed.augmentations == cipher.augmentations
    assert name in str(keyed)
    assert RING.fingerprint not in str(keyed)


@pytest.mark.parametrize("policy", get_args(Policy))
def test_independent_images_share_no_key_under_any_policy(policy: Policy) -> None:
    same = IMAGES[:1].expand(5, -1, -1, -1).contiguous()
    keyed = Keyed(ciphers.make("pixel"), RING, policy)
    apart = keyed.protect(same, context(independent=True))
    assert len({image.numpy().tobytes() for image in apart}) == 5
    together = keyed.protect(same, context())
    assert len({image.numpy().tobytes() for image in together}) == (5 if policy == "image" else 1)


def test_a_network_protects_whoever_asks_alike(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("unet", {"widths": [4, 8]})
    bundle = save_transformation(
        tmp_path,
        network,
        method="unet",
        architecture={"widths": [4, 8]},
        size=(8, 8),
        classes=("a", "b"),
        info={"config": {"alpha": 0.25}},
    )
    protection = Network(bundle)
    found = protection.protect(IMAGES, context())
    assert torch.equal(found, bundle.protect(IMAGES))
    assert torch.equal(found, protection.protect(IMAGES, context(independent=True, first=9)))
    assert protection.params()["digest"] == bundle.digest
    assert str(protection) == "shared transformation network, no keys, α = 0.25"


def test_no_protection_changes_nothing_and_says_so() -> None:
    plain: Protection = Plain()
    assert torch.equal(plain.protect(IMAGES, context()), IMAGES)
    assert (plain.name, plain.params()) == (UNPROTECTED[0], dict(UNPROTECTED[1]))
    assert plain.output_shape(3, 8, 8) == (3, 8, 8)
    assert (plain.policy, plain.policies, str(plain)) == (None, (), "none")


def test_plain_images_travel_in_the_layout_of_protected_ones() -> None:
    cipher = ciphers.make("etc-gray", block_size=4)
    keyed = Keyed(cipher, RING, "image")
    plain = keyed.plain()
    assert (plain.name, plain.params(), plain.plain()) == ("none", {}, plain)
    found = plain.protect(IMAGES, context())
    assert torch.equal(found, cipher.layout(IMAGES))
    assert tuple(found.shape[1:]) == plain.output_shape(3, 8, 8) == keyed.output_shape(3, 8, 8)
    assert plain_fits(keyed, (3, 8, 8))
    for same in (Plain(), Keyed(ciphers.make("pixel"), RING, "image").plain()):
        assert torch.equal(same.protect(IMAGES, context()), IMAGES)


def test_a_cipher_that_changes_the_shape_may_have_no_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cipher = ciphers.make("etc-gray", block_size=4)
    monkeypatch.setattr(type(cipher), "layout", ciphers.Cipher.layout)
    assert not plain_fits(Keyed(cipher, RING, "image"), (3, 8, 8))
