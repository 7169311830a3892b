import copy
import dataclasses
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from fedenc import models
from fedenc.errors import TrainingError
from fedenc.training import loop, rng, validation
from fedenc.training.checkpoint import unpack
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Reports, fit
from fedenc.training.model_files import weights_sha256
from fedenc.training.training_set import TrainingSet
from fedenc.transformation import features
from fedenc.transformation.objective import Objective
from fedenc.transformation.unet import UNet

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    epochs=2,
    batch_size=16,
    learning_rate=0.01,
    augmentation="crop-flip",
    normalisation="none",
    precision="fp32",
)


def examples(count: int = 48):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 4


def psi():
    made = models.build("resnet20", channels=3, classes=4, size=(8, 8), seed=5)
    made.input.set([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    made(examples()[0])  # so that its running statistics are not the initial ones
    return made.eval()


def objective(alpha: float = 0.1, seed: int = 0, classifier=None) -> Objective:
    classifier = classifier or psi()
    with rng.seeded(seed, "test objective"):
        h = UNet((4, 8))
    return Objective(h, classifier, features.load("classifier", classifier), alpha=alpha, name="t")


def train(model, config=CONFIG, **keywords):
    return fit(model, TrainingSet(*examples()), config, seed=3, device=CPU, **keywords)


def loss_by_hand(h, classifier, alpha, images, labels):
    phi = features.load("classifier", classifier)
    x = images.double().div(255).float()
    y = h(x)
    body = classifier.body(
        (y - classifier.input.mean.view(3, 1, 1)) / classifier.input.std.view(3, 1, 1)
    )
    chosen = body.log_softmax(1).gather(1, labels[:, None]).mean()
    return -chosen - alpha * (phi(y) - phi(x)).square().mean()


def test_the_loss_is_the_papers():
    images, labels = examples(16)
    for alpha in (0.0, 0.5):
        model, classifier = objective(alpha), psi()
        h = copy.deepcopy(model.h).train()
        expected = loss_by_hand(h, classifier, alpha, images, labels)
        config = dataclasses.replace(CONFIG, epochs=1, augmentation="none", schedule="constant")
        (report,) = fit(model, TrainingSet(images, labels), config, seed=0, device=CPU)
        assert report.loss == pytest.approx(expected.item(), rel=1e-4)
        # and the step is down its gradient
        expected.backward()
        for (name, p), q in zip(h.named_parameters(), model.h.parameters(), strict=True):
            step = -config.learning_rate * 1.9 * (p.grad + config.weight_decay * p.detach())
            # (a bias in front of a batch normalisation has a gradient of rounding errors alone)
            assert (q - p - step).norm() < 0.1 * step.norm(), name


def test_a_larger_alpha_moves_the_features_further():
    images, _ = examples()
    x, classifier = images / 255, psi()
    phi = features.load("classifier", classifier)
    distances = []
    for alpha in (0.0, 10.0):
        model = objective(alpha)
        list(train(model, dataclasses.replace(CONFIG, epochs=6, learning_rate=0.05)))
        with torch.no_grad():
            distances.append(F.mse_loss(phi(model.h.eval()(x)), phi(x)).item())
    assert distances[1] > 1.03 * distances[0]


def test_only_the_network_is_trained_and_saved():
    classifier = psi()
    digest = weights_sha256(classifier)
    model = objective(classifier=classifier)
    frozen, phi = model._frozen
    before = weights_sha256(model.h), weights_sha256(phi)
    run = train(model)
    list(run)
    assert weights_sha256(classifier) == weights_sha256(frozen) == digest
    assert weights_sha256(phi) == before[1]
    assert weights_sha256(model.h) != before[0]
    model.train()
    assert not frozen.training
    assert not phi.training
    own = {f"adapter.{name}" for name in model.h.state_dict()} | {"input.mean", "input.std"}
    assert model.state_dict().keys() == own
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.h.parameters()}
    names = unpack(run.checkpoint())[0].keys()
    assert {n.removeprefix("model.") for n in names if n.startswith("model.")} == own
    assert all(p.grad is None for p in (*frozen.parameters(), *phi.parameters()))


def test_the_network_sees_pixels_over_255():
    model = objective()
    seen = []
    model.h.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images, _ = examples()
    next(train(model))
    model.eval()(images)
    assert torch.allclose(seen[-1], images / 255, atol=1e-7)


def test_without_alpha_the_features_are_not_even_computed():
    model = objective(alpha=0.0)
    assert model._frozen[1] is None
    model(examples()[0])
    assert model.penalty() is None


def foreign_features(classifier) -> features.Features:
    """The same layers, as if they were not the classifier's."""
    phi = features.load("classifier", classifier)
    phi.shared = 0
    return phi


def test_the_plain_images_features_take_no_gradient():
    for load, expected in (
        (foreign_features, [False, True]),
        (partial(features.load, "classifier"), [False]),
    ):
        model = Objective(UNet((4, 8)), psi(), load(psi()), alpha=1.0, name="t")
        _, phi = model._frozen
        wanted = []
        note = partial(lambda found, *_: found.append(torch.is_grad_enabled()), wanted)
        phi.register_forward_pre_hook(note)
        model(examples()[0])
        assert sorted(wanted) == expected


@pytest.mark.parametrize("name", [name for name in models.names() if name != "set"])
def test_features_that_the_classifier_computes_anyway_are_the_same_features(name):
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    classifier = models.build(name, channels=3, classes=4, size=(32, 32), seed=5).eval()
    gradients, penalties = [], []
    for phi in (features.load("classifier", classifier), foreign_features(classifier)):
        with rng.seeded(0, "test objective"):
            h = UNet((4, 8))
        model = Objective(h, classifier, phi, alpha=1.0, name="t")
        loss = F.cross_entropy(model(images), torch.arange(4)) + model.penalty()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in h.parameters()]))
        penalties.append(model.penalty().item())
    assert penalties[0] == pytest.approx(penalties[1], rel=1e-5)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999


def test_the_validation_loss_is_the_methods_loss_and_picks_the_weights():
    images, labels = examples()
    config = dataclasses.replace(CONFIG, epochs=4, validation=0.25, learning_rate=0.05)
    model = objective(alpha=2.0)
    reports = list(train(model, config))
    _, held = validation.split(labels, 0.25, 3)
    with torch.no_grad():
        loss = loss_by_hand(model.h.eval(), psi(), 2.0, images[held], labels[held])
    losses = [r.validation_loss for r in reports]
    assert min(losses) == pytest.approx(loss.item(), rel=1e-4)
    batches = TrainingSet(images, labels).batches(held.split(5), CPU)
    found = validation.mean_loss(model.eval(), batches, precision="fp32", device=CPU)
    assert found == pytest.approx(min(losses), rel=1e-4)
    with torch.no_grad():
        plain = F.cross_entropy(model(images[held]), labels[held])
    assert found < plain


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_at_any_step_it_ends_with_the_same_weights(precision):
    config = dataclasses.replace(CONFIG, validation=0.25, precision=precision)
    whole = objective()
    run = train(whole, config, reports=Reports(steps=1))
    states = [run.checkpoint(), *(run.checkpoint() for _ in run)]
    digest = weights_sha256(whole)
    assert len(states) == 1 + run.steps
    for step in (0, 1, 3, 4, run.steps):
        resumed = objective(seed=9)
        list(train(resumed, config, state=states[step]))
        assert weights_sha256(resumed) == digest, step


def test_a_checkpoint_of_another_objective_is_refused():
    state = train(objective()).checkpoint()
    classifier = psi()
    other = Objective(UNet((4, 8)), classifier, None, alpha=0, name="another")
    with pytest.raises(TrainingError, match=r"model was 't, .* and is 'another, "):
        train(other, state=state)


def test_a_negative_loss_is_fine_and_an_endless_one_is_not(monkeypatch):
    model = objective(alpha=20.0)
    last = list(train(model))[-1]
    assert last.loss < 0
    assert math.isfinite(last.loss)
    with pytest.raises(TrainingError, match="diverged"):
        list(train(objective(alpha=1e38)))
    monkeypatch.setattr(loop, "DIVERGED", -10.0)
    with pytest.raises(TrainingError, match="diverged"):
        list(train(objective()))
