import math

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc.errors import TrainingError
from fedenc.training import model_files, validation
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit
from fedenc.training.training_set import TrainingSet

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 5), min_size=80, max_size=200),
    st.floats(0.1, 0.9),
    st.integers(0, 99),
)
def test_a_split_is_stratified_and_leaves_nobody_out(labels, fraction, seed):
    labels = torch.tensor(labels)
    training, held = validation.split(labels, fraction, seed)
    assert held is not None
    assert torch.equal(torch.cat([training, held]).sort().values, torch.arange(len(labels)))
    for label in labels.unique():
        count = int((labels == label).sum())
        out = int((labels[held] == label).sum())
        assert abs(out - count * fraction) <= 1
        assert out < count


def test_no_fraction_holds_nothing_out_and_a_tiny_one_is_refused():
    training, held = validation.split(torch.zeros(5, dtype=int), 0.0, 0)
    assert training.tolist() == [0, 1, 2, 3, 4]
    assert held is None
    with pytest.raises(TrainingError, match="holds out none of 5 images"):
        validation.split(torch.zeros(5, dtype=int), 0.01, 0)


def test_the_weights_of_the_lowest_validation_loss_are_the_result():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=generator)
    data = TrainingSet(images, torch.arange(60) % 4)  # noise: the loss gets worse in the end
    config = TrainingConfig(
        epochs=6, batch_size=16, validation=0.3, learning_rate=0.1, precision="fp32"
    )
    model = tiny.network()
    run = fit(model, data, config, seed=1, device=CPU)
    losses, digests, states = [], [], []
    for progress in run:
        losses.append(progress.validation_loss)
        digests.append(model_files.weights_sha256(model))
        states.append(run.checkpoint())
    best = min(range(6), key=lambda epoch: losses[epoch])
    assert best < 5, "the data no longer overfits; choose other data"
    assert digests[5] == digests[best]
    _, held = validation.split(data.labels, 0.3, 1)
    assert held is not None
    batches = data.batches(held.split(5), CPU)
    found = validation.mean_loss(model.eval(), batches, precision="fp32", device=CPU)
    assert found == pytest.approx(losses[best], rel=1e-4)
    assert math.isfinite(found)
    for state in (states[best], states[4], states[5]):
        resumed = tiny.network(seed=1)
        list(fit(resumed, data, config, seed=1, device=CPU, state=state))
        assert model_files.weights_sha256(resumed) == digests[5]
