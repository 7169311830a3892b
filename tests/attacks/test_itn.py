"""U-Nets that learn to undo a protection."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pictures import error, pictures
from torch import Tensor
from victims import attacked, photos

from fedenc.attacks import itn, learning
from fedenc.attacks.base import Attack, Labelled, Means
from fedenc.attacks.itn import InverseNetwork, InverseOfNetwork
from fedenc.attacks.learning import Canvas
from fedenc.attacks.target import Target, make_target
from fedenc.errors import AttackError
from fedenc.keys import POLICIES, Policy
from fedenc.protection import Network, Protection
from fedenc.training.loop import Reports
from fedenc.training.recipes import recipe
from fedenc.transformation.bundle import save_transformation

CIPHERS = [
    ("pixel", {}),
    ("le", {}),
    ("ele", {}),
    ("etc", {}),
    ("etc-gray", {"subsampling": "4:4:4"}),
    ("etc-gray", {"subsampling": "4:2:0"}),
    ("scramble", {"block_size": 4}),
    ("logistic-rc4", {}),
]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("ito-short", epochs=10, batch_size=32, precision="fp32")
    monkeypatch.setitem(itn.PRESETS, "small", ((24,), config))


def test_a_shared_key_is_learned() -> None:
    target = pictures("pixel", "same", color_shuffle=False)
    assert error(target, attacked(InverseNetwork(), target).images) < 0.6


def test_independent_keys_leave_what_the_canonical_form_tells() -> None:
    target = pictures("pixel", "image", 32, color_shuffle=False)
    found = attacked(InverseNetwork(), target)
    assert found.facts["input"] == "canonical"
    assert error(target, found.images) < 0.8


def test_the_canonical_form_is_a_better_input_than_the_ciphertext() -> None:
    target = pictures("pixel", "image", 32)
    canonical, ciphertext = (
        error(target, attacked(InverseNetwork(input=input), target).images)
        for input in ("canonical", "ciphertext")
    )
    assert canonical < ciphertext


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("cipher", "params"), CIPHERS)
def test_every_cipher_and_policy(cipher: str, params: dict[str, str], policy: Policy) -> None:
    target = pictures(cipher, policy, 4, size=16, public=20, **params)
    found = attacked(InverseNetwork(epochs=1), target)
    assert error(target, found.images) < 5
    canonical = policy == "image" and cipher != "logistic-rc4"
    assert found.facts["input"] == ("canonical" if canonical else "ciphertext")
    assert found.facts["networks"] == (2 if policy == "client" else 1)


def test_noise_without_a_canonical_form_says_nothing() -> None:
    target = pictures("logistic-rc4", "image")
    assert error(target, attacked(InverseNetwork(epochs=10), target).images) > 0.9
    with pytest.raises(AttackError, match="logistic-rc4 has no canonical form"):
        attacked(InverseNetwork(input="canonical"), target)


def protected(tmp_path: Path) -> Target:
    """Images under a network that swaps channels and negates."""

    class Swap(torch.nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 3, 1)
            with torch.no_grad():
                self.weight.copy_(-torch.eye(3).flip(0).view(3, 3, 1, 1))
                self.bias.fill_(1)  # type: ignore[union-attr]

    transformation = save_transformation(
        tmp_path,
        Swap(),
        method="unet",
        architecture={"widths": [4]},
        size=(8, 8),
        classes=["a", "b"],
        info={},
    )
    every = photos()
    small = torch.nn.functional.adaptive_avg_pool2d(every.images.float(), 8).to(torch.uint8)
    protections: dict[int, Protection] = {0: Network(transformation)}
    return make_target(
        protections,
        small[:16],
        every.labels[:16],
        torch.zeros(16, dtype=torch.int64),
        public=Labelled(small[16:272], every.labels[16:272], every.classes),
    )


def test_a_shared_network_is_undone(tmp_path: Path) -> None:
    target = protected(tmp_path)
    assert InverseOfNetwork().unsuitable(target.method) is None
    assert InverseNetwork().unsuitable(target.method) == "needs a cipher"
    assert error(target, attacked(InverseOfNetwork(), target).images) < 0.6
    other = pictures("pixel", "same", 4).method
    reason = InverseOfNetwork().unsuitable(other)
    assert reason == "needs images that a shared transformation network protects"


@pytest.mark.parametrize(
    ("cipher", "policy", "input"),
    [("pixel", "same", "auto"), ("pixel", "image", "auto"), ("pixel", "image", "ciphertext")],
)
def test_it_goes_on_where_it_was_stopped(
    cipher: str, policy: Policy, input: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = pictures(cipher, policy, public=96)
    attack = InverseNetwork(epochs=3, input=input)
    whole = attack.run(target.observe(attack.knowledge), Means(seed=3)).images
    stopped(attack, target, tmp_path, monkeypatch, seed=3)
    again = attack.run(target.observe(attack.knowledge), Means(seed=3, folder=tmp_path)).images
    assert torch.equal(again, whole)
    assert not torch.equal(attacked(attack, target, seed=4).images, whole)


def stopped(
    attack: Attack,
    target: Target,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Have an attack killed in the middle of an epoch, after a checkpoint."""

    class Killed(Exception):
        pass

    steps: Iterator[int] = iter(range(100))

    def kill(done: float, text: str) -> None:
        if next(steps) == 2:
            raise Killed

    monkeypatch.setattr(learning, "_REPORTS", Reports(steps=2))
    monkeypatch.setattr(learning, "_CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        attack.run(target.observe(attack.knowledge), Means(seed, folder=folder, report=kill))
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("protected", "plain", "multiple", "channels", "size"),
    [
        ((3, 32, 32), (3, 32, 32), 8, 3, (32, 32)),
        ((3, 32, 32), (3, 30, 29), 1, 3, (32, 32)),
        ((1, 96, 32), (3, 32, 32), 16, 3, (32, 32)),
        ((1, 48, 32), (3, 32, 32), 1, 2, (32, 32)),
        ((1, 96, 32), (3, 30, 30), 1, 3, (32, 32)),
    ],
)
def test_protected_and_plain_images_lie_over_each_other(
    protected: tuple[int, int, int],
    plain: tuple[int, int, int],
    multiple: int,
    channels: int,
    size: tuple[int, int],
) -> None:
    canvas = Canvas(protected, plain, multiple)
    assert (canvas.channels, canvas.size) == (channels, size)
    images = torch.randint(256, (2, *protected), dtype=torch.uint8)
    laid = canvas.lay(images)
    assert laid.shape == (2, channels, *size)
    assert laid.flatten().sort().values[-images.numel() :].sum() == laid.sum() == images.sum()
    filled: Tensor = canvas.fill(torch.ones((2, *plain), dtype=torch.uint8))
    assert filled.shape == (2, plain[0], *size)
    assert canvas.cut(filled).shape == (2, *plain)


def test_the_full_preset_is_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    widths, config = itn.PRESETS["full"]
    assert widths == (64, 128, 256, 512, 1024)
    assert (config.epochs, config.batch_size, config.learning_rate) == (200, 128, 0.1)
    assert (config.momentum, config.nesterov, config.weight_decay) == (0.9, False, 5e-4)
    assert [round(200 * m) for m in config.milestones] == [60, 120, 160]
    assert config.validation == 0.1


def test_bad_parameters_and_images_are_named() -> None:
    with pytest.raises(AttackError, match="preset is 'huge', expected one of small, full"):
        InverseNetwork(preset="huge")
    with pytest.raises(AttackError, match="epochs is -1, expected 1 or more"):
        InverseOfNetwork(epochs=-1)
    with pytest.raises(AttackError, match="input is 'both'"):
        InverseNetwork(input="both")
    target = pictures("pixel", "same", 4)
    assert target.public is not None
    target.public.images.resize_(256, 3, 4, 4)
    with pytest.raises(AttackError, match="public images are 3×4×4; itn needs"):
        attacked(InverseNetwork(), target)


def test_it_is_registered() -> None:
    from fedenc.attacks import registry

    assert {"itn", "itn-network"} <= set(registry.names())
    attack = registry.make("itn", epochs=3)
    assert registry.make("itn", **attack.params()) == attack
