import dataclasses

import pytest
import torch
from torch import nn

from fedenc import models
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training import loop
from fedenc.training.checkpoint import pack, unpack
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit
from fedenc.training.model_files import weights_sha256
from fedenc.training.predict import predict

CPU = torch.device("cpu")
CONFIG = TrainingConfig(epochs=2, batch_size=16, augmentation="crop-flip")


def examples(count: int = 70, size: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, brighter in the quadrant that the label names."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 128, (count, 3, size, size), generator=generator)
    half = size // 2
    for label in range(4):
        row, column = divmod(label, 2)
        part = images[labels == label]
        part[:, :, row * half : (row + 1) * half, column * half : (column + 1) * half] += 127
        images[labels == label] = part
    return images.to(torch.uint8), labels


def network(seed: int = 0) -> Network:
    return models.build("resnet20", channels=3, classes=4, size=(8, 8), seed=seed)


def train(model, images, labels, config=CONFIG, **keywords):
    return fit(model, images, labels, config=config, seed=3, device=CPU, **keywords)


def test_it_learns_and_says_so():
    images, labels = examples(400)
    config = TrainingConfig(epochs=6, batch_size=32, learning_rate=0.05)
    model = network()
    reports = list(train(model, images, labels, config))
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5, 6]
    last = reports[-1]
    assert last.done
    assert last.step == last.steps == 6 * 13
    assert last.loss < 0.2 < reports[0].loss
    assert last.accuracy > 0.95
    assert last.images_per_second > 0
    unseen, truth = examples(100, seed=9)
    assert (predict(model, unseen, device=CPU).argmax(1) == truth).double().mean() > 0.95


def test_shuffled_labels_are_not_learnt():
    images, labels = examples(400)
    labels = labels[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    model = network()
    list(train(model, images, labels, TrainingConfig(epochs=3, batch_size=32)))
    unseen, truth = examples(200, seed=9)
    assert (predict(model, unseen, device=CPU).argmax(1) == truth).double().mean() < 0.5


def test_the_first_step_is_the_textbook_one():
    """One step on one batch against SGD written out: g = ∇loss + λw, w ← w − lr·(1 + µ)·g."""
    images, labels = examples(16)
    config = TrainingConfig(epochs=1, batch_size=16, precision="fp32", schedule="constant")
    expected = network()
    expected.input.measure(images)
    loss = nn.functional.cross_entropy(expected.train()(images), labels)
    loss.backward()
    with torch.no_grad():
        for p in expected.parameters():
            gradient = p.grad + config.weight_decay * p
            p -= config.learning_rate * (1 + config.momentum) * gradient
    model = network()
    (report,) = train(model, images, labels, config)
    assert report.loss == pytest.approx(loss.item(), rel=1e-5)
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [CONFIG, dataclasses.replace(CONFIG, ema=0.9, clip_norm=1.0, decay_all=False)],
    ids=["plain", "average"],
)
def test_resumed_at_any_step_it_ends_with_the_same_weights(config):
    images, labels = examples()
    model = network()
    run = train(model, images, labels, config, every_steps=1)
    states = [run.checkpoint()]
    for _ in run:
        torch.rand(1)  # the caller's use of global state must not matter
        states.append(run.checkpoint())
    assert len(states) == 11
    digest = weights_sha256(model)
    whole = network()
    last = list(train(whole, images, labels, config))[-1]
    assert weights_sha256(whole) == digest
    for step in (0, 1, 4, 5, 7, 10):
        resumed = network(seed=99)
        run = train(resumed, images, labels, config, state=states[step])
        (*_, final) = run
        assert weights_sha256(resumed) == digest, step
        assert run.checkpoint() == states[-1], step
        assert (final.loss, final.accuracy) == (last.loss, last.accuracy)


def test_dropout_is_resumed_too():
    def dropping() -> Network:
        model = network()
        model.adapter = nn.Dropout(0.5)
        return model

    images, labels = examples()
    whole, resumed = dropping(), dropping()
    run = train(whole, images, labels, every_steps=3)
    next(run)
    state = run.checkpoint()
    list(run)
    list(train(resumed, images, labels, state=state))
    assert weights_sha256(resumed) == weights_sha256(whole)


def test_reports_by_the_clock_change_nothing():
    images, labels = examples()
    one, other = network(), network()
    assert len(list(train(one, images, labels, every_seconds=1e-9))) == 10
    assert len(list(train(other, images, labels))) == 2
    assert weights_sha256(one) == weights_sha256(other)


def test_another_seed_trains_another_model():
    images, labels = examples()
    one, other = network(), network()
    list(fit(one, images, labels, config=CONFIG, seed=1, device=CPU))
    list(fit(other, images, labels, config=CONFIG, seed=2, device=CPU))
    assert weights_sha256(one) != weights_sha256(other)


def test_one_view_an_image_is_visited():
    images, labels = examples(32)
    model = network()
    views = images.repeat_interleave(3, dim=0)
    config = TrainingConfig(epochs=1, batch_size=8)
    (report,) = train(model, views, labels.repeat_interleave(3), config, views=3)
    assert report.steps == 4
    same = network()
    list(train(same, images, labels, config))
    assert weights_sha256(same) == weights_sha256(model)


@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_divergence_stops_the_run_and_keeps_the_last_good_weights(rate):
    images, labels = examples()
    config = TrainingConfig(
        epochs=50, batch_size=16, learning_rate=rate, schedule="step", precision="fp32"
    )
    model = network()
    run = train(model, images, labels, config, every_steps=1)
    good = [weights_sha256(model)]
    with pytest.raises(TrainingError, match=r"diverged before step .* try a learning_rate below"):
        good.extend(weights_sha256(model) for _ in run)
    assert weights_sha256(model) == good[-1]
    resumed = network(seed=5)
    fit(resumed, images, labels, config=config, seed=3, device=CPU, state=run.checkpoint())
    assert weights_sha256(resumed) == good[-1]


def test_a_finite_loss_can_be_hopeless_too(monkeypatch):
    monkeypatch.setattr(loop, "HOPELESS", 0.01)
    model = network()
    digest = weights_sha256(model.to(memory_format=torch.channels_last))
    run = train(model, *examples())
    with pytest.raises(TrainingError, match="diverged before step 5 of 10"):
        next(run)
    model.input.load_state_dict(network().input.state_dict())  # measured, not trained
    assert weights_sha256(model) == digest


def test_the_precision_in_use_is_known():
    config = dataclasses.replace(CONFIG, precision="fp32")
    assert train(network(), *examples(), config).precision == "fp32"
    assert train(network(), *examples()).precision in ("fp32", "bf16")


def test_a_checkpoint_of_another_run_is_refused_with_the_difference():
    images, labels = examples()
    state = train(network(), images, labels).checkpoint()
    other = dataclasses.replace(CONFIG, learning_rate=0.05)
    with pytest.raises(TrainingError, match=r"learning_rate was 0\.1 and is 0\.05"):
        train(network(), images, labels, other, state=state)
    with pytest.raises(TrainingError, match="seed was 3 and is 4"):
        fit(network(), images, labels, config=CONFIG, seed=4, device=CPU, state=state)
    with pytest.raises(TrainingError, match="pixels was"):
        train(network(), images // 2, labels, state=state)
    with pytest.raises(TrainingError, match="labels was"):
        train(network(), images, labels.flip(0), state=state)
    run = train(network(), images, labels)
    next(run)
    tensors, document = unpack(run.checkpoint())
    missing = pack({n: t for n, t in tensors.items() if "momentum" not in n}, document)
    with pytest.raises(TrainingError, match="lacks what its run needs"):
        train(network(), images, labels, state=missing)
    with pytest.raises(TrainingError, match="damaged"):
        train(network(), images, labels, state=state[:-1])


def test_sets_that_cannot_be_trained_on_are_refused():
    images, labels = examples(12)
    for bad_images, bad_labels, views, message in (
        (images, labels[:-1], 1, r"labels are int64 \[11\]; expected int64 \[12\]"),
        (images, labels.int(), 1, "labels are int32"),
        (images, labels + 1, 1, r"labels run from 1 to 4; the model has 0\.\.3"),
        (images, labels, 5, "views is 5; expected a divisor of the 12 images"),
        (images, labels, 0, "views is 0"),
        (images, labels, 12, "there are 1 images; expected at least 2"),
        (images.float(), labels, 1, "float32"),
        (images[:, :, :4], labels, 1, "this model takes"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(network(), bad_images, bad_labels, views=views)
