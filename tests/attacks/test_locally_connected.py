"""The authors' locally connected network."""

from pathlib import Path

import pytest
import torch
from pictures import error, pictures
from victims import attacked

from fedenc.attacks.base import Means
from fedenc.attacks.locally_connected import LocallyConnected, PixelNetwork
from fedenc.errors import AttackError, TrainingError


@pytest.mark.parametrize("color_shuffle", [False, True])
def test_a_shared_key_is_learned_from_pairs(color_shuffle: bool) -> None:
    target = pictures("pixel", "same", color_shuffle=color_shuffle)
    assert error(target, attacked(LocallyConnected(), target).images) < 0.3


def test_under_independent_keys_nothing_is_learned() -> None:
    target = pictures("pixel", "image")
    assert error(target, attacked(LocallyConnected(epochs=20), target).images) > 0.7


def test_every_owner_has_a_network_of_his_own_up_to_a_number() -> None:
    target = pictures("pixel", "client", owners=3, count=18)
    found = attacked(LocallyConnected(epochs=30, owners=2), target)
    assert found.images is not None
    assert found.facts["networks"] == 2
    assert target.public is not None
    mean = target.public.images.float().mean(0).round().to(torch.uint8)
    untouched = (found.images == mean).flatten(1).all(1)
    assert torch.equal(untouched, target.uploads.owners == 2)
    assert error(target, found.images) < 0.8


def test_as_published_it_hardly_learns() -> None:
    target = pictures("pixel", "same")
    published, ours = (
        error(target, attacked(LocallyConnected(epochs=20, loss=loss), target).images)
        for loss in ("mean", "pixel")
    )
    assert ours < published


def test_a_pixel_depends_on_that_pixel_alone() -> None:
    network = PixelNetwork(3, 3, (4, 4))
    images = torch.rand(1, 3, 4, 4)
    changed = images.clone()
    changed[..., 1, 2] = 1 - changed[..., 1, 2]
    differs = (network(images) != network(changed)).any(1)[0]
    assert differs.nonzero().tolist() == [[1, 2]]


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    target = pictures("pixel", "same", public=128)
    attack = LocallyConnected(epochs=4)
    observation = target.observe(attack.knowledge)
    whole = attack.run(observation, Means())

    class Stopped(Exception):
        pass

    def stop(done: float, text: str) -> None:
        if done >= 1:
            raise Stopped

    with pytest.raises(Stopped):
        attack.run(observation, Means(folder=tmp_path, report=stop))
    assert [path.name for path in tmp_path.iterdir()] == ["locally-connected-0.checkpoint"]
    again = attack.run(observation, Means(folder=tmp_path))
    assert torch.equal(again.images, whole.images)
    with pytest.raises(TrainingError, match="checkpoint belongs to another run"):
        LocallyConnected(epochs=5).run(observation, Means(folder=tmp_path))


def test_bad_parameters_are_named() -> None:
    with pytest.raises(AttackError, match="loss is 'both', expected one of pixel, mean"):
        LocallyConnected(loss="both")
    with pytest.raises(AttackError, match="epochs is 0, expected 1 or more"):
        LocallyConnected(epochs=0)
