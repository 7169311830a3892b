"""Keys from images made for the purpose."""

import pytest
import torch
from test_known_pairs import CIPHERS, decrypted
from torch import Tensor
from victims import attacked, victims

from fedenc import ciphers
from fedenc.attacks.base import Means, Method, Observation
from fedenc.attacks.chosen_plaintext import ChosenPlaintext, choose
from fedenc.attacks.observe import Observe
from fedenc.keys import Policy

MOST = {"logistic-rc4": 2, "ele": 4}


@pytest.mark.parametrize(("cipher", "params"), CIPHERS, ids=str)
@pytest.mark.parametrize("policy", ["same", "client"])
def test_a_few_images_give_the_whole_key(
    cipher: str, params: dict[str, bool | int | str], policy: Policy
) -> None:
    target = victims(cipher, policy, 12, **params)
    found = attacked(ChosenPlaintext(), target)
    assert found.images is not None
    assert torch.equal(found.images, decrypted(target))
    assert found.facts["chosen"] == MOST.get(cipher, 1)
    assert found.key is not None
    for key, true in zip(found.key, target.key, strict=True):
        assert all(torch.equal(k, t.long()) for k, t in zip(key, true, strict=True))


def test_pixel_based_encryption_as_published() -> None:
    images = choose(ciphers.make("pixel"), (3, 4, 5), seed=0)
    assert images.shape == (1, 3, 4, 5)
    assert images[0, :, 2, 3].tolist() == [1, 2, 3]
    assert (images == images[:, :, :1, :1]).all()


def test_small_images_of_le_take_two() -> None:
    assert len(choose(ciphers.make("le"), (3, 4, 4), seed=0)) == 2
    assert len(choose(ciphers.make("le"), (3, 4, 8), seed=0)) == 1


def test_independent_keys_are_not_even_asked_for() -> None:
    target = victims("pixel", "image", 12)

    def oracle(images: Tensor, owner: int) -> Tensor:
        raise AssertionError("asked")

    attack = ChosenPlaintext()
    seen = target.observe(attack.knowledge)
    found = attack.run(
        Observation(seen.method, seen.uploads, dict.fromkeys(attack.knowledge, oracle)), Means()
    )
    looked = attacked(Observe(), target)
    assert found.images is not None
    assert looked.images is not None
    assert torch.equal(found.images, looked.images)
    assert found.facts["chosen"] == 0


def test_what_it_does_not_apply_to() -> None:
    network = Method("transformation", None, None, (3, 8, 8))
    assert ChosenPlaintext().unsuitable(network) == "needs a cipher with keys"
    none = Method("none", ciphers.make("none"), "same", (3, 8, 8))
    assert "no way" in str(ChosenPlaintext().unsuitable(none))
