"""Least squares in place of a trained network."""

import pytest
import torch
from cifar_targets import cifar
from victims import attacked, victims

from fedenc import ciphers
from fedenc.attacks import make
from fedenc.attacks.affine import Affine, fit, predict
from fedenc.attacks.base import Knowledge, Method
from fedenc.errors import AttackError


@pytest.mark.parametrize("color_shuffle", [True, False])
def test_eight_pairs_give_pixel_based_encryption_exactly(color_shuffle: bool) -> None:
    target = cifar("pixel", "same", 300, color_shuffle=color_shuffle)
    found = attacked(Affine(), target)
    assert found.images is not None
    assert torch.equal(found.images, target.plain)


def test_eight_pairs_of_every_participant() -> None:
    target = cifar("pixel", "client", 200)
    found = attacked(Affine(), target)
    assert found.images is not None
    assert (found.images == target.plain).double().mean() > 0.9999


def test_too_few_pairs_fit_themselves_but_not_others() -> None:
    target = cifar("pixel", "same", 100)
    found = attacked(Affine(pairs=2), target)
    pairs = target.observe([Knowledge.PAIRS]).pairs
    assert found.images is not None
    assert torch.equal(found.images[pairs.rows[:2]], pairs.plain[:2])
    assert (found.images == target.plain)[target.hidden([Knowledge.PAIRS])].double().mean() < 0.5


def test_independent_keys_give_about_the_mean_image() -> None:
    target = victims("pixel", "image", 200)
    found = attacked(Affine(pairs=0), target)
    hidden = target.hidden([Knowledge.PAIRS])
    assert found.images is not None
    errors = [
        (guess.float() - target.plain[hidden].float()).square().mean()
        for guess in (found.images[hidden], target.plain.float().mean(0, keepdim=True))
    ]
    assert errors[0] > 0.9 * errors[1]


def test_it_is_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    encrypted = torch.randint(256, (9, 2, 3, 2), generator=generator).byte()
    plain = torch.randint(256, (9, 2, 3, 2), generator=generator).byte()
    maps = fit(encrypted, plain)
    one, other = encrypted[:, :, 1, 0].double(), plain[:, :, 1, 0].double()
    design = torch.cat((one - 127.5, torch.full((9, 1), 127.5)), 1)
    expected = torch.linalg.lstsq(design, other).solution
    torch.testing.assert_close(maps[2], expected)
    assert predict(encrypted, maps).shape == plain.shape


def test_bad_input() -> None:
    with pytest.raises(AttackError, match="pairs is -3"):
        make("affine", pairs=-3)
    gray = Method("etc-gray", ciphers.make("etc-gray"), "same", (3, 32, 32))
    assert Affine().unsuitable(gray) == "needs ciphertexts of the size of the images"
    assert Affine().unsuitable(Method("le", ciphers.make("le"), "same", (3, 8, 8))) is None
