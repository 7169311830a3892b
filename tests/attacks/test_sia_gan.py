"""SIA-GAN: natural images out of ciphertexts, without pairs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pictures import pictures
from victims import attacked

from fedenc.attacks import learning, sia_gan
from fedenc.attacks.base import Means
from fedenc.attacks.networks import BlockAdaptation, SiaDiscriminator, SiaGenerator
from fedenc.attacks.sia_gan import Preset, SiaConfig, SiaGan, SiaStepper, block_side
from fedenc.attacks.target import Target
from fedenc.ciphers import names
from fedenc.errors import AttackError, TrainingError
from fedenc.training.loop import Progress, Reports, Run
from fedenc.training.training_set import TrainingSet


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sia_gan.PRESETS, "small", Preset(4, 16, "tiny", 32))


@pytest.mark.parametrize("cipher", names())
def test_every_cipher(cipher: str) -> None:
    target = pictures(cipher, "same", 6, size=16, public=12)
    found = attacked(SiaGan(epochs=1), target)
    assert found.images is not None
    assert found.images.dtype == torch.uint8
    assert found.images.shape == target.plain.shape


def test_sub_networks_see_what_a_cipher_works_on() -> None:
    sides = {name: block_side(pictures(name, "same", 2, size=16).method) for name in names()}
    expected = {"pixel": 1, "none": 1, "logistic-rc4": 1, "le": 4, "ele": 4, "etc": 4}
    assert sides == expected | {"etc-gray": 8, "scramble": 8}


def started(target: Target, config: SiaConfig) -> Run[SiaGenerator]:
    assert target.public is not None
    canvas = learning.Canvas((3, 16, 16), (3, 16, 16), 8)
    preset, public = sia_gan.PRESETS["small"], target.public
    stepper = SiaStepper(canvas, 1, preset, public.images, public.classes, config, means=Means())
    return Run(stepper, TrainingSet(target.uploads.images, target.labels), seed=0)


def test_its_losses_are_what_they_are_called() -> None:
    target = pictures("pixel", "same", 24, size=16, public=64)
    config = SiaConfig(epochs=10, batch_size=12, learning_rate=1e-3, precision="fp32")
    reports: list[Progress] = list(started(target, config))
    for progress in reports:
        parts = progress.parts
        assert progress.loss == pytest.approx(parts["adversarial"] + parts["classification"])
        assert parts["discriminator"] >= 0
    assert reports[-1].parts["classification"] < reports[0].parts["classification"]
    assert reports[-1].parts["discriminator"] < reports[0].parts["discriminator"]


def test_the_discriminator_only_learns_from_its_own_loss() -> None:
    target = pictures("pixel", "same", 24, size=16, public=64)
    config = SiaConfig(epochs=1, batch_size=12, precision="fp32")
    runs = [started(target, replace(config, class_weight=weight)) for weight in (0.0, 1.0)]
    first = [next(run).parts["discriminator"] for run in runs]
    assert first[0] == pytest.approx(first[1], rel=0.05)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = pictures("pixel", "client", 80, size=16, public=20)
    attack = SiaGan(epochs=2)
    observation = target.observe(attack.knowledge)
    whole = attack.run(observation, Means()).images

    class Killed(Exception):
        pass

    steps: Iterator[int] = iter(range(100))

    def kill(done: float, text: str) -> None:
        if next(steps) == 2:
            raise Killed

    monkeypatch.setattr(sia_gan, "_REPORTS", Reports(steps=1))
    monkeypatch.setattr(learning, "_CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        attack.run(observation, Means(folder=tmp_path, report=kill))
    assert [path.name for path in tmp_path.iterdir()] == ["sia-gan.checkpoint"]
    again = attack.run(observation, Means(folder=tmp_path)).images
    assert torch.equal(again, whole)
    assert not torch.equal(attack.run(observation, Means(seed=1)).images, whole)
    with pytest.raises(TrainingError, match="checkpoint belongs to another run"):
        attack.run(observation, Means(seed=1, folder=tmp_path))


def test_a_block_is_seen_by_its_own_sub_network() -> None:
    network = BlockAdaptation(3, (8, 8), 4).eval()
    images = torch.rand(1, 3, 8, 8)
    changed = images.clone()
    changed[..., :4, 4:] = 1 - changed[..., :4, 4:]
    differs = (network(images) != network(changed)).any(1)[0]
    assert differs[:4, 4:].all()
    assert not differs[4:].any()
    assert not differs[:, :4].any()
    assert network(images[:, :, :, [4, 5, 6, 7, 0, 1, 2, 3]]).shape == (1, 16, 8, 8)


def test_networks_give_one_score_or_one_image_each() -> None:
    made = SiaGenerator(2, 3, (16, 24), 8, 4)(torch.rand(2, 2, 16, 24))
    assert made.shape == (2, 3, 16, 24)
    assert made.abs().max() <= 1
    assert SiaDiscriminator(3, (16, 24), 16)(made).shape == (2,)


def test_the_full_preset_has_the_published_sizes() -> None:
    full = sia_gan.PRESETS["full"]
    assert (full.width, full.judge, full.visits) == (64, 1024, 100 * 50_000)
    config = SiaConfig()
    assert (config.batch_size, config.learning_rate, config.judge_rate) == (64, 1e-4, 4e-4)
    assert config.betas == (0.0, 0.9)


def test_bad_parameters_and_too_few_uploads_are_named() -> None:
    with pytest.raises(AttackError, match="preset is 'huge', expected one of small, full"):
        SiaGan(preset="huge")
    with pytest.raises(AttackError, match="epochs is -1, expected 1 or more"):
        SiaGan(epochs=-1)
    with pytest.raises(AttackError, match="there is 1 upload; expected at least 2"):
        attacked(SiaGan(), pictures("pixel", "same", 1, owners=1))
