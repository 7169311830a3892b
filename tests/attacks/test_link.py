"""Which upload shows a candidate image."""

import dataclasses
from typing import Any

import pytest
import torch
from cifar_targets import cifar, cifar_images
from torch import Tensor
from victims import attacked, photos, victims

from fedenc import ciphers
from fedenc.attacks import make
from fedenc.attacks.base import Knowledge, Means, Method, Observation, Uploads
from fedenc.attacks.link import Link, LinkNetwork, versions
from fedenc.errors import AttackError
from fedenc.keys import POLICIES, Policy

LINKABLE: list[tuple[str, dict[str, bool | int | str]]] = [
    ("none", {}),
    ("pixel", {}),
    ("pixel", {"color_shuffle": False}),
    ("le", {}),
    ("ele", {}),
    ("scramble", {}),
    ("etc", {}),
    ("etc-gray", {}),
    ("etc-gray", {"subsampling": "4:2:0"}),
]


def unique(images: Tensor) -> Tensor:
    """Rows of images that have no equal."""
    _, which, count = images.flatten(1).unique(dim=0, return_inverse=True, return_counts=True)
    return (count[which] == 1).nonzero().squeeze(1)


@pytest.mark.parametrize(("cipher", "params"), LINKABLE, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_upload_is_found_and_nothing_else(
    cipher: str, params: dict[str, bool | int | str], policy: Policy
) -> None:
    target = victims(cipher, policy, 60, **params)
    found = attacked(Link(), target)
    assert target.shown is not None
    assert target.candidates is not None
    assert found.links is not None
    alone = unique(target.candidates)
    assert torch.equal(found.links[alone], target.shown[alone])


@pytest.mark.parametrize(("cipher", "params"), LINKABLE[1:], ids=str)
def test_cifar_test_images(cipher: str, params: dict[str, bool | int | str]) -> None:
    """The first thousand are uploaded, all ten thousand are tried."""
    target = cifar(cipher, "image", 1000, **params)
    target = dataclasses.replace(target, candidates=cifar_images())
    found = attacked(Link(), target)
    assert found.links is not None
    assert found.links[:1000].tolist() == list(range(1000))
    assert (found.links[1000:] == -1).all()


def test_owners_crops_and_flips() -> None:
    target = victims("pixel", "image", 12)
    assert target.candidates is not None
    changed = list(versions(target.plain, 2, True))
    assert len(changed) == 50
    assert torch.equal(changed[0], target.plain)
    moved = target.plain.flip(3)
    moved = torch.cat((torch.zeros_like(moved[:, :, :2]), moved[:, :, :-2]), 2)
    uploads = dataclasses.replace(target.uploads, images=target.method.encrypt_afresh(moved))
    target = dataclasses.replace(target, uploads=uploads, candidates=target.plain)
    for attack, share in ((Link(), 0), (Link(crops=2), 0), (Link(crops=2, flips=True), 1)):
        found = attacked(attack, target)
        assert found.links is not None
        assert (found.links == torch.arange(12)).float().mean() == share


class Network:
    """Stands for a shared network: complements, and smooths a little."""

    def protect(self, images: Tensor) -> Tensor:
        return 255 - (images // 2 + images.roll(1, 3) // 2)


def test_a_shared_network_links_everything() -> None:
    images, network = photos().images, Network()
    uploads = Uploads(
        network.protect(images[:40]) - torch.arange(40).view(-1, 1, 1, 1).byte() % 2,
        *(torch.zeros(40).long() for _ in range(3)),
        {0: b""},
    )
    method = Method("transformation", None, None, (3, 32, 32))
    candidates = torch.cat((images[20:40], images[100:120]))
    granted: dict[Knowledge, Any] = {
        Knowledge.CANDIDATES: candidates,
        Knowledge.NETWORK: network,
    }
    found = LinkNetwork().run(Observation(method, uploads, granted), Means())
    assert found.links is not None
    assert found.links[:20].tolist() == list(range(20, 40))
    assert (found.links[20:] == -1).all()


def test_bad_input() -> None:
    shape = 3, 32, 32
    network = Method("transformation", None, None, shape)
    stream = Method("logistic-rc4", ciphers.make("logistic-rc4"), "image", shape)
    pixel = Method("pixel", ciphers.make("pixel"), "image", shape)
    assert "link-network" in str(Link().unsuitable(network))
    assert "canonical form" in str(Link().unsuitable(stream))
    assert Link().unsuitable(pixel) is None
    assert LinkNetwork().unsuitable(network) is None
    assert LinkNetwork().unsuitable(pixel)
    for name in ("link", "link-network"):
        with pytest.raises(AttackError, match="crops is -1"):
            make(name, crops=-1)
        with pytest.raises(AttackError, match="flips is 1"):
            make(name, flips=1)
