"""Keys made of small numbers."""

import dataclasses

import numpy as np
import pytest
import torch
from test_known_pairs import CIPHERS, decrypted
from victims import attacked, photos, victims

from fedenc import ciphers
from fedenc.attacks import make
from fedenc.attacks.base import Method
from fedenc.attacks.observe import Observe
from fedenc.attacks.seed_search import SeedSearch
from fedenc.attacks.target import Target, make_target
from fedenc.errors import AttackError
from fedenc.keys import POLICIES, KeyRing, Policy
from fedenc.protection import Keyed


def simulated(cipher: str, policy: Policy, seed: int, **params: bool | int | str) -> Target:
    made = ciphers.make(cipher, **params)
    shared = policy == "same"
    owners = {i: Keyed(made, KeyRing.simulated(seed, i, shared=shared), policy) for i in range(2)}
    images = photos().images[::40][:12]
    numbers = torch.arange(len(images))
    return make_target(owners, images, numbers, numbers % 2)


@pytest.mark.parametrize(("cipher", "params"), CIPHERS, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_simulation_with_a_small_seed_falls(
    cipher: str, params: dict[str, bool | int | str], policy: Policy
) -> None:
    target = simulated(cipher, policy, 11, **params)
    found = attacked(SeedSearch(seeds=24), target)
    assert found.facts["seed"] == 11
    assert found.images is not None
    assert torch.equal(found.images, decrypted(target))
    assert float(found.facts["seeds_per_second"]) > 0
    assert float(found.facts["log10_years"]) > 50


@pytest.mark.parametrize(("cipher", "params"), CIPHERS, ids=str)
def test_secret_keys_are_not_found(cipher: str, params: dict[str, bool | int | str]) -> None:
    target = victims(cipher, "image", 12, **params)
    found, seen = attacked(SeedSearch(seeds=24), target), attacked(Observe(), target)
    assert found.facts["seed"] == -1
    assert found.images is not None
    assert seen.images is not None
    assert torch.equal(found.images, seen.images)


@pytest.mark.parametrize("policy", ["same", "image"])
def test_masks_of_numpy_seeds_fall(policy: Policy) -> None:
    target = victims("pixel", policy, 12, owners=1, color_shuffle=False)
    numbers = range(12) if policy == "image" else [0] * 12
    masks = [np.random.RandomState(300 + i).randint(0, 2, (3, 32, 32)) * 255 for i in numbers]
    images = target.plain ^ torch.from_numpy(np.stack(masks)).to(torch.uint8)
    target = dataclasses.replace(target, uploads=dataclasses.replace(target.uploads, images=images))
    found = attacked(SeedSearch(seeds=400, scheme="numpy"), target)
    assert found.facts["seed"] == 300
    assert found.images is not None
    assert torch.equal(found.images, target.plain)


def test_bad_input() -> None:
    for seeds in (0, True):
        with pytest.raises(AttackError, match="seeds is"):
            make("seed-search", seeds=seeds)
    with pytest.raises(AttackError, match="one of simulated, numpy"):
        make("seed-search", scheme="java")
    le = Method("le", ciphers.make("le"), "same", (3, 8, 8))
    assert SeedSearch().unsuitable(le) is None
    assert "alone" in str(SeedSearch(scheme="numpy").unsuitable(le))
    assert SeedSearch().unsuitable(Method("transformation", None, None, (3, 8, 8)))
    target = victims("pixel", "same", 12)
    empty = dataclasses.replace(target, uploads=target.uploads.rows(torch.arange(0)))
    with pytest.raises(AttackError, match="no uploads"):
        attacked(SeedSearch(), empty)
