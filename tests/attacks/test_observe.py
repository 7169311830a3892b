"""What is seen without a key."""

import pytest
import torch
from cifar_targets import cifar
from test_known_pairs import CIPHERS
from victims import attacked, photos, victims

from fedenc import ciphers
from fedenc.attacks.base import Method
from fedenc.attacks.common import fitted, zero_key_pictures
from fedenc.attacks.observe import Observe
from fedenc.ciphers.none import NoCipher
from fedenc.images.metrics import ssim
from fedenc.keys import Policy


@pytest.mark.parametrize(("cipher", "params"), CIPHERS, ids=str)
@pytest.mark.parametrize("policy", ["same", "image"])
def test_a_picture_of_every_upload(
    cipher: str, params: dict[str, bool | int | str], policy: Policy
) -> None:
    target = victims(cipher, policy, 12, **params)
    before = target.uploads.images.clone()
    found = attacked(Observe(), target)
    assert found.images is not None
    assert found.images.dtype == torch.uint8
    assert found.images.shape == target.plain.shape
    found.images.fill_(7)
    assert torch.equal(target.uploads.images, before)


@pytest.mark.parametrize("color_shuffle", [True, False])
def test_no_key_changes_the_picture_of_pixel_based_encryption(color_shuffle: bool) -> None:
    target = victims("pixel", "image", 12, color_shuffle=color_shuffle)
    found = attacked(Observe(), target)
    again = zero_key_pictures(target.method, target.method.encrypt_afresh(target.plain))
    assert found.images is not None
    assert torch.equal(found.images, again)
    assert torch.equal(found.images, zero_key_pictures(target.method, target.plain))


def test_more_is_seen_than_in_the_ciphertext() -> None:
    for cipher in ("pixel", "le"):
        target = cifar(cipher, "image", 100)
        found = attacked(Observe(), target)
        assert found.images is not None
        seen, shown = ssim(found.images, target.plain), ssim(target.uploads.images, target.plain)
        assert seen.mean() > shown.mean() + 0.1


def test_le_shows_brightness_under_any_key() -> None:
    target = cifar("le", "image", 60)
    found = attacked(Observe(), target)
    assert found.images is not None
    small = [
        one.float().mean(1).unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4)).flatten(1)
        for one in (found.images, target.plain)
    ]
    pairs = zip(*small, strict=True)
    alike = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])
    assert alike.abs().median() > 0.95


def test_logistic_rc4_shows_nothing() -> None:
    target = cifar("logistic-rc4", "image", 200)
    found = attacked(Observe(), target)
    assert found.images is not None
    both = torch.stack((found.images.flatten(), target.plain.flatten())).double()
    assert torch.corrcoef(both)[0, 1].abs() < 0.01
    other = ssim(found.images, target.plain.roll(1, 0)).mean()
    assert ssim(found.images, target.plain).mean() < other + 0.01


def test_what_no_key_changes_of_a_plug_in_is_shown() -> None:
    class Mine(NoCipher):
        name = "mine"

        def canonical(self, images: torch.Tensor) -> torch.Tensor:
            return images.flip(2)

    images = photos().images[:3]
    for cipher, shown in ((Mine(), images.flip(2)), (ciphers.make("logistic-rc4"), images)):
        method = Method(cipher.name, cipher, "image", (3, 32, 32))
        assert torch.equal(zero_key_pictures(method, images), shown)
    network = Method("transformation", None, None, (3, 32, 32))
    assert torch.equal(zero_key_pictures(network, images), images)


def test_ciphertexts_of_other_shapes_fit() -> None:
    images = photos().images[:2]
    assert fitted(images, (3, 30, 31)).shape == (2, 3, 30, 31)
    assert fitted(images[:, :1], (3, 32, 32)).shape == (2, 3, 32, 32)
    assert fitted(images, (3, 64, 40)).shape == (2, 3, 64, 40)
