"""Keys from known images."""

import pytest
import torch
from cifar_targets import cifar
from victims import attacked, victims

from fedenc import ciphers
from fedenc.attacks import make
from fedenc.attacks.base import Knowledge, Method
from fedenc.attacks.known_pairs import KnownPairs
from fedenc.attacks.observe import Observe
from fedenc.attacks.recovery import recover, solvable
from fedenc.attacks.target import Target
from fedenc.ciphers.base import Cipher
from fedenc.errors import AttackError
from fedenc.keys import Policy

CIPHERS: list[tuple[str, dict[str, bool | int | str]]] = [
    ("pixel", {}),
    ("pixel", {"color_shuffle": False}),
    ("le", {}),
    ("le", {"compat": "icce2018"}),
    ("ele", {}),
    ("scramble", {}),
    ("etc", {}),
    ("etc", {"color_shuffle": False, "block_size": 8}),
    ("etc-gray", {}),
    ("etc-gray", {"subsampling": "4:2:0"}),
    ("logistic-rc4", {}),
]


def decrypted(target: Target) -> torch.Tensor:
    """What the true keys give; not the plain images where a cipher rounds."""
    cipher, images = target.method.cipher, target.plain.clone()
    assert cipher is not None
    for rows, key in zip(target.observe().groups(), target.key, strict=True):
        images[rows] = cipher.invert(target.uploads.images[rows], key, target.method.shape)
    return images


@pytest.mark.parametrize(("cipher", "params"), CIPHERS, ids=str)
@pytest.mark.parametrize("policy", ["same", "client"])
def test_all_pairs_give_every_byte(
    cipher: str, params: dict[str, bool | int | str], policy: Policy
) -> None:
    target = victims(cipher, policy, 264, **params)
    found = attacked(KnownPairs(pairs=0), target)
    hidden = target.hidden([Knowledge.PAIRS])
    assert found.images is not None
    right = (found.images == decrypted(target))[hidden].double().mean()
    assert right > 0.998


@pytest.mark.parametrize(("cipher", "params"), CIPHERS, ids=str)
def test_what_is_known_of_a_key_is_right_and_the_rest_agrees_with_the_pairs(
    cipher: str, params: dict[str, bool | int | str]
) -> None:
    target = victims(cipher, "same", 40, **params)
    made = target.method.cipher
    assert made is not None
    for count in (1, 2, 5):
        plain, encrypted = target.plain[:count], target.uploads.images[:count]
        found = recover(made, plain, encrypted)
        for known, true in zip(found.known, target.key[0], strict=True):
            assert known.dtype == torch.int64
            assert known.shape == true.shape
            assert ((known == true) | (known == -1)).all()
        assert torch.equal(made.apply(plain, found.guess), encrypted)


def test_two_pairs_give_pixel_based_encryption() -> None:
    right = []
    for start in range(0, 3500, 700):
        target = cifar("pixel", "same", 100, start)
        found = attacked(KnownPairs(), target)
        hidden = target.hidden([Knowledge.PAIRS])
        assert found.images is not None
        right.append((found.images == target.plain)[hidden].double().mean().item())
    assert sorted(right)[2] >= 0.99


def test_one_image_gives_all_of_le() -> None:
    known = []
    for start in range(0, 2100, 100):
        target = cifar("le", "same", 1, start)
        assert target.method.cipher is not None
        found = recover(target.method.cipher, target.plain, target.uploads.images)
        known.append(int((found.known[0] == target.key[0][0]).sum()))
    assert sorted(known)[10] == 96


@pytest.mark.parametrize("cipher", ["pixel", "le", "ele", "etc", "scramble", "logistic-rc4"])
def test_independent_keys_give_no_more_than_is_seen_without_a_key(cipher: str) -> None:
    target = victims(cipher, "image", 24)
    found, seen = attacked(KnownPairs(), target), attacked(Observe(), target)
    hidden = target.hidden([Knowledge.PAIRS])
    assert found.images is not None
    assert seen.images is not None
    assert torch.equal(found.images[hidden], seen.images[hidden])
    assert found.key is not None
    assert len(found.key) == 24
    assert all((part == -1).all() for key in found.key for part in key)


def test_more_pairs_tell_more_of_ele() -> None:
    target = victims("ele", "same", 264)
    shares = []
    for pairs in (1, 2, 8):
        found = attacked(KnownPairs(pairs), target)
        assert found.key is not None
        shares.append((found.key[0][0] == target.key[0][0]).double().mean().item())
    assert shares[0] < shares[1] < shares[2]


def test_uploads_stay_as_they_are() -> None:
    target = victims("scramble", "same", 24)
    before = target.uploads.images.clone()
    attacked(KnownPairs(), target)
    assert torch.equal(target.uploads.images, before)


def test_bad_input() -> None:
    for pairs in (-1, True, 1.5):
        with pytest.raises(AttackError, match="pairs is"):
            make("known-pairs", pairs=pairs)
    target = victims("pixel", "same", 24)
    cipher = target.method.cipher
    assert cipher is not None
    with pytest.raises(AttackError, match="no known pairs"):
        recover(cipher, target.plain[:0], target.uploads.images[:0])


def test_unknown_ciphers() -> None:
    class Mine(type(ciphers.make("none"))):  # type: ignore[misc]
        name = "mine"

    mine: Cipher = Mine()
    assert not solvable(mine)
    assert "mine" in str(KnownPairs().unsuitable(Method("mine", mine, "same", (3, 8, 8))))
    with pytest.raises(AttackError, match="mine"):
        recover(mine, torch.zeros(1, 3, 8, 8).byte(), torch.zeros(1, 3, 8, 8).byte())
    network = Method("transformation", None, None, (3, 8, 8))
    assert KnownPairs().unsuitable(network) == "needs a cipher with keys"
