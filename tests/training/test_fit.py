import dataclasses

import pytest
import torch
from tiny import examples, network
from torch import nn

from fedenc.errors import TrainingError
from fedenc.training import loop
from fedenc.training.checkpoint import pack, unpack
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Reports, fit
from fedenc.training.model_files import weights_sha256
from fedenc.training.predict import predict
from fedenc.training.training_set import TrainingSet

CPU = torch.device("cpu")
CONFIG = TrainingConfig(epochs=2, batch_size=16, augmentation="crop-flip")


def train(model, training_set, config=CONFIG, **keywords):
    return fit(model, training_set, config, **({"seed": 3, "device": CPU} | keywords))


def correct(model, training_set):
    found = predict(model, training_set.images, device=CPU).argmax(1)
    return (found == training_set.labels).double().mean().item()


def test_it_learns_and_says_so():
    config = TrainingConfig(epochs=6, batch_size=32, learning_rate=0.05)
    model = network()
    reports = list(train(model, examples(400), config))
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5, 6]
    last = reports[-1]
    assert last.done
    assert last.step == last.steps == 6 * 13
    assert last.loss < 0.2 < reports[0].loss
    assert last.accuracy > 0.95
    assert last.images_per_second > 0
    assert correct(model, examples(100, seed=9)) > 0.95


def test_shuffled_labels_are_not_learnt():
    images, labels = examples(400).images, examples(400).labels
    shuffled = labels[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    model = network()
    config = TrainingConfig(epochs=3, batch_size=32)
    list(train(model, TrainingSet(images, shuffled), config))
    assert correct(model, examples(200, seed=9)) < 0.5


def test_the_first_step_is_the_textbook_one():
    """One step on one batch against SGD written out: g = ∇loss + λw, w ← w − lr·(1 + µ)·g."""
    batch = examples(16)
    config = TrainingConfig(epochs=1, batch_size=16, precision="fp32", schedule="constant")
    expected = network()
    expected.input.measure(batch.images)
    loss = nn.functional.cross_entropy(expected.train()(batch.images), batch.labels)
    loss.backward()
    with torch.no_grad():
        for p in expected.parameters():
            gradient = p.grad + config.weight_decay * p
            p -= config.learning_rate * (1 + config.momentum) * gradient
    model = network()
    (report,) = train(model, batch, config)
    assert report.loss == pytest.approx(loss.item(), rel=1e-5)
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "views"),
    [
        (CONFIG, 1),
        (dataclasses.replace(CONFIG, ema=0.9, clip_norm=1.0, decay_all=False), 1),
        (dataclasses.replace(CONFIG, validation=0.3), 2),
    ],
    ids=["plain", "average", "validation and views"],
)
def test_resumed_at_any_step_it_ends_with_the_same_weights(config, views):
    """With dropout, whose random numbers go on too."""
    once = examples(70 // views)
    images = once.images.repeat_interleave(views, dim=0)
    data = TrainingSet(images, once.labels.repeat_interleave(views), views)
    model = network(dropout=0.5)
    run = train(model, data, config, reports=Reports(steps=1))
    states = [run.checkpoint()]
    for _ in run:
        torch.rand(1)  # the caller's use of global state must not matter
        states.append(run.checkpoint())
    assert len(states) == run.steps + 1
    digest = weights_sha256(model)
    whole = network(dropout=0.5)
    last = list(train(whole, data, config))[-1]
    assert weights_sha256(whole) == digest
    for step, state in enumerate(states):
        resumed = network(seed=99, dropout=0.5)
        run = train(resumed, data, config, state=state)
        (*_, final) = run
        assert weights_sha256(resumed) == digest, step
        assert run.checkpoint() == states[-1], step
        assert (final.loss, final.accuracy) == (last.loss, last.accuracy)


def test_reports_change_nothing_and_the_seed_does():
    runs = []
    for keywords in ({"reports": Reports(seconds=1e-9)}, {}, {"seed": 4}):
        model = network()
        runs.append((len(list(train(model, examples(), **keywords))), weights_sha256(model)))
    (often, one), (seldom, other), (_, third) = runs
    assert (often, seldom) == (10, 2)
    assert one == other != third


def test_one_view_an_image_is_visited():
    once = examples(32)
    model = network()
    views = TrainingSet(
        once.images.repeat_interleave(3, dim=0), once.labels.repeat_interleave(3), views=3
    )
    config = TrainingConfig(epochs=1, batch_size=8)
    (report,) = train(model, views, config)
    assert report.steps == 4
    same = network()
    list(train(same, once, config))
    assert weights_sha256(same) == weights_sha256(model)


def test_averaged_weights_come_with_the_statistics_that_were_measured():
    measured, model = network(), network()
    measured.input.measure(examples().images)
    list(train(model, examples(), dataclasses.replace(CONFIG, ema=0.99)))
    assert torch.equal(model.input.mean, measured.input.mean)
    assert torch.equal(model.input.std, measured.input.std)


@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_divergence_stops_the_run_and_keeps_the_last_good_weights(rate):
    config = TrainingConfig(
        epochs=50, batch_size=16, learning_rate=rate, schedule="step", precision="fp32"
    )
    model = network()
    run = train(model, examples(), config, reports=Reports(steps=1))
    good = [weights_sha256(model)]
    with pytest.raises(TrainingError, match=r"diverged before step .* try a learning_rate below"):
        good.extend(weights_sha256(model) for _ in run)
    assert weights_sha256(model) == good[-1]
    resumed = network(seed=5)
    train(resumed, examples(), config, state=run.checkpoint())
    assert weights_sha256(resumed) == good[-1]


def test_a_finite_loss_can_be_too_high_as_well(monkeypatch):
    monkeypatch.setattr(loop, "DIVERGED", 0.01)
    model = network()
    digest = weights_sha256(model.to(memory_format=torch.channels_last))
    run = train(model, examples())
    with pytest.raises(TrainingError, match="diverged before step 5 of 10"):
        next(run)
    model.input.load_state_dict(network().input.state_dict())  # measured, not trained
    assert weights_sha256(model) == digest


def test_the_precision_in_use_is_known():
    config = dataclasses.replace(CONFIG, precision="fp32")
    assert train(network(), examples(), config).precision == "fp32"
    assert train(network(), examples()).precision in ("fp32", "bf16")


def test_a_checkpoint_of_another_run_is_refused_with_the_difference():
    data = examples()
    images, labels = data.images, data.labels
    run = train(network(), data)
    state = run.checkpoint()
    slower = dataclasses.replace(CONFIG, learning_rate=0.05)
    for changes, message in (
        ({"config": slower}, r"training\.learning_rate was 0\.1 and is 0\.05"),
        ({"seed": 4}, "seed was 3 and is 4"),
        ({"training_set": TrainingSet(images // 2, labels)}, "pixels was"),
        ({"training_set": TrainingSet(images, labels.flip(0))}, "labels was"),
        ({"state": state[:-1]}, "damaged"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(network(), **({"training_set": data, "state": state} | changes))
    next(run)
    tensors, document = unpack(run.checkpoint())
    missing = pack({n: t for n, t in tensors.items() if "momentum" not in n}, document)
    with pytest.raises(TrainingError, match="lacks what its run needs"):
        train(network(), data, state=missing)
    with pytest.raises(TrainingError, match="checkpoint has version 1; expected 3"):
        train(network(), data, state=pack(tensors, document | {"version": 1}))


def test_sets_that_cannot_be_trained_on_are_refused():
    data = examples(12)
    images, labels = data.images, data.labels
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
            train(network(), TrainingSet(bad_images, bad_labels, views))
