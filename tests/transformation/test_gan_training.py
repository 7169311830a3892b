"""Training the GAN-based transformation: its losses, its checkpoints, and what it refuses."""

import math
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc.errors import TrainingError
from fedenc.models.network import Architecture, Network
from fedenc.training import checkpoint, rng, validation
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Progress, Reports, Run
from fedenc.training.model_files import weights_sha256
from fedenc.training.training_set import TrainingSet
from fedenc.transformation.gan import Discriminator, Generator
from fedenc.transformation.gan_training import GanConfig, make_targets, train_gan

CPU = torch.device("cpu")
WIDTHS = (4, 8)
CONFIG = GanConfig(epochs=2, batch_size=8, precision="fp32", augmentation="crop-flip")
VALIDATED = replace(CONFIG, validation=0.25)


def pictures(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return (255 * F.interpolate(coarse, size=(16, 16), mode="bilinear")).to(torch.uint8)


IMAGES, LABELS = pictures(24), torch.arange(24) % 3
TARGETS = make_targets(pictures(10, seed=2), seed=3)


@pytest.fixture(scope="module")
def classifier() -> Network:
    with rng.seeded(1, "test"):
        body = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(392, 3)),
        )
    return Network(Architecture("tiny", 3, 3, (16, 16)), nn.Identity(), body).eval()


def start(classifier: Network, config: GanConfig = CONFIG, **changes: Any) -> Run[Generator]:
    arguments = {"widths": WIDTHS, "seed": 1, "device": CPU, "targets": TARGETS} | changes
    data = TrainingSet(arguments.pop("images", IMAGES), arguments.pop("labels", LABELS))
    targets = arguments.pop("targets")
    return train_gan(data, targets, classifier=classifier, config=config, **arguments)


@pytest.fixture(scope="module")
def whole(classifier: Network) -> tuple[Run[Generator], list[Progress]]:
    """A finished run with validation, and its reports."""
    run = start(classifier, VALIDATED)
    return run, list(run)


def state(run: Run[Generator]) -> dict[str, Tensor]:
    """All weights as of the last report."""
    tensors, _ = checkpoint.unpack(run.checkpoint())
    networks = ("generator.", "inverse.", "discriminator.")
    return {name: t for name, t in tensors.items() if name.startswith(networks)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_first_step_is_what_the_formulas_say(classifier: Network) -> None:
    """Losses and weights after one step, from the losses written out and a plain optimiser."""
    config = replace(CONFIG, epochs=1, batch_size=24, augmentation="none", class_weight=0.5)
    run = start(classifier, config, targets=TARGETS[:1])
    with rng.seeded(1, "gan"):
        forth, back, judge = Generator(WIDTHS), Generator(WIDTHS), Discriminator(WIDTHS)
    assert same(forth.state_dict(), run.model.state_dict())
    plain, wanted = IMAGES / 255, TARGETS[:1].repeat(24, 1, 1, 1) / 255
    makers = torch.optim.Adam(
        [*forth.parameters(), *back.parameters()], lr=2e-4, betas=(0.5, 0.999)
    )
    protected = forth(plain)
    adversarial = F.mse_loss(judge(protected), torch.ones_like(judge(protected)))
    cycle = F.l1_loss(2 * back(protected) - 1, 2 * plain - 1)
    logits = deepcopy(classifier).eval()(protected * 255)  # its own: backward leaves gradients
    classification = F.cross_entropy(logits, LABELS)
    loss = adversarial + 10 * cycle + 0.5 * classification
    real, made = judge(wanted), judge(protected.detach())
    judgement = F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(made, torch.zeros_like(made))
    loss.backward()
    makers.step()
    judges = torch.optim.Adam(judge.parameters(), lr=2e-4, betas=(0.5, 0.999))
    judges.zero_grad()  # of what the generators' loss left
    (judgement / 2).backward()
    judges.step()

    progress = next(run)
    assert progress.done
    assert progress.loss == pytest.approx(loss.item(), rel=1e-5)
    assert progress.parts == {
        "adversarial": pytest.approx(adversarial.item(), rel=1e-5),
        "cycle": pytest.approx(cycle.item(), rel=1e-5),
        "classification": pytest.approx(classification.item(), rel=1e-5),
        "discriminator": pytest.approx(judgement.item() / 2, rel=1e-5),
    }
    assert progress.accuracy == (logits.argmax(1) == LABELS).sum().item() / 24
    tensors, _ = checkpoint.unpack(run.checkpoint())
    for name, network in (("generator", forth), ("inverse", back), ("discriminator", judge)):
        for key, mine in network.state_dict().items():
            # Adam's first step is the sign of the gradient, which rounding may turn where it is 0.
            assert ((mine - tensors[f"{name}.{key}"]).abs() < 1e-5).float().mean() > 0.98


def test_training_improves_what_it_minimises(classifier: Network) -> None:
    config = replace(CONFIG, epochs=8, learning_rate=2e-3, augmentation="none")
    first, *_, last = start(classifier, config)
    assert last.parts["cycle"] < 0.8 * first.parts["cycle"]
    assert last.parts["classification"] < first.parts["classification"]
    assert last.loss < first.loss
    assert last.learning_rate < first.learning_rate == 2e-3
    assert (last.epoch, last.step) == (last.epochs, last.steps)


def test_the_classifier_is_left_as_it_was(classifier: Network) -> None:
    before = weights_sha256(classifier)
    classifier.train()
    list(start(classifier))
    assert weights_sha256(classifier) == before
    assert not classifier.training
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 6])
def test_a_resumed_run_ends_with_the_same_bytes(classifier: Network, whole: Any, stop: int) -> None:
    run, reports = whole
    broken = start(classifier, VALIDATED, reports=Reports(steps=1))
    list(islice(broken, stop))
    again = start(classifier, VALIDATED, state=broken.checkpoint())
    last = list(again)[-1]
    assert again.checkpoint() == run.checkpoint()
    assert last.validation_loss == reports[-1].validation_loss
    assert (last.loss, last.step, last.accuracy, last.parts) == (
        reports[-1].loss,
        reports[-1].step,
        reports[-1].accuracy,
        reports[-1].parts,
    )


def test_reports_do_not_change_the_result(classifier: Network, whole: Any) -> None:
    run, reports = whole
    often = start(classifier, VALIDATED, reports=Reports(steps=2))
    assert (len(reports), len(list(often))) == (2, 4)
    assert often.checkpoint() == run.checkpoint()
    other = start(classifier, VALIDATED, seed=2)
    list(other)
    assert other.checkpoint() != run.checkpoint()


def test_validation_reports_on_images_that_fit_would_hold_out(
    classifier: Network, whole: Any
) -> None:
    run, reports = whole
    _, held_out = validation.split(LABELS, 0.25, 1)
    assert held_out is not None
    with torch.no_grad():
        protected = run.model(IMAGES[held_out] / 255)
        expected = F.cross_entropy(classifier(255 * protected), LABELS[held_out])
    assert reports[-1].validation_loss == pytest.approx(expected.item(), rel=1e-5)
    spoilt = IMAGES.clone()
    spoilt[held_out] = 0
    other = start(classifier, VALIDATED, images=spoilt)
    list(other)
    assert same(state(run), state(other))


def test_a_run_that_diverges_keeps_its_last_good_weights(classifier: Network) -> None:
    run = start(classifier, replace(CONFIG, learning_rate=1e20))
    before = state(run)
    with pytest.raises(TrainingError, match=r"diverged before step .* another seed"):
        list(run)
    assert same(before, state(run))


def test_checkpoints_of_other_runs_are_refused(classifier: Network) -> None:
    saved = start(classifier).checkpoint()
    for changes, message in [
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"widths": (4, 4)}, "widths was"),
        ({"targets": TARGETS[1:]}, "targets was"),
        ({"config": replace(CONFIG, cycle_weight=1.0)}, "gan.cycle_weight was 10.0 and is 1.0"),
        ({"state": saved[:-1]}, "damaged or not one of ours"),
    ]:
        with pytest.raises(TrainingError, match=message):
            start(classifier, **({"state": saved} | changes))


def test_arguments_that_do_not_fit(classifier: Network) -> None:
    for changes, message in [
        ({"targets": TARGETS[:, :, :8]}, "targets are uint8 10×3×8×16; expected uint8 M×3×16×16"),
        ({"targets": TARGETS[:0]}, "at least one"),
        ({"targets": TARGETS.float()}, "targets are float32"),
        ({"images": IMAGES[:, :, :8]}, "this model takes uint8 N×3×16×16"),
        ({"labels": LABELS + 1}, "labels run from 1 to 3"),
        ({"widths": (0, 4)}, r"widths \(0, 4\)"),
    ]:
        with pytest.raises(TrainingError, match=message):
            start(classifier, **changes)


def test_configuration() -> None:
    training = TrainingConfig(epochs=3, batch_size=5, augmentation="flip", validation=0.1)
    config = GanConfig.of(training, cycle_weight=2.0)
    assert (config.epochs, config.batch_size, config.augmentation) == (3, 5, "flip")
    assert (config.validation, config.cycle_weight, config.learning_rate) == (0.1, 2.0, 2e-4)
    with pytest.raises(TrainingError, match=r"learning_rate is -1.*; cycle_weight is nan"):
        GanConfig(learning_rate=-1, cycle_weight=math.nan)
    with pytest.raises(TrainingError, match=r"epochs is 0.*; augmentation is 'x'"):
        GanConfig(epochs=0, augmentation="x")


def test_targets_share_one_mask() -> None:
    images = pictures(5)
    made = make_targets(images, 1)
    assert torch.equal(make_targets(made, 1), images)
    turned = made != images
    assert (turned == turned[0]).all()
    assert 0.4 < turned[0].float().mean() < 0.6
    assert not torch.equal(make_targets(images, 2), made)
