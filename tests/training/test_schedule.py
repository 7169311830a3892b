import warnings

import pytest
import torch

from fedenc.errors import TrainingError
from fedenc.training.config import TrainingConfig
from fedenc.training.schedule import learning_rate

STEPS = 200


def reference(make) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule = make(optimiser)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(STEPS):
            rates.append(optimiser.param_groups[0]["lr"])
            schedule.step()
    return rates


@pytest.mark.parametrize(
    ("config", "make"),
    [
        (
            TrainingConfig(learning_rate=0.4, schedule="onecycle", warmup=0.3),
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.4, total_steps=STEPS + 1),
        ),
        (
            TrainingConfig(learning_rate=0.4, schedule="cosine"),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS),
        ),
        (
            TrainingConfig(
                learning_rate=0.4, schedule="step", milestones=(0.3, 0.6, 0.8), gamma=0.2
            ),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [60, 120, 160], 0.2),
        ),
        (
            TrainingConfig(learning_rate=0.4, schedule="constant"),
            lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
        ),
    ],
    ids=["onecycle", "cosine", "step", "constant"],
)
def test_rates_are_those_of_torch(config, make):
    # torch's one-cycle schedule counts the rate after the last step as well
    steps = STEPS + 1 if config.schedule == "onecycle" else STEPS
    rates = [learning_rate(config, step, steps) for step in range(STEPS)]
    assert rates == pytest.approx(reference(make), rel=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "onecycle"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_short_runs_have_finite_rates(schedule, steps):
    config = TrainingConfig(schedule=schedule, milestones=(0.5,))
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert all(0 <= rate <= config.learning_rate * (1 + 1e-12) for rate in rates)
    assert max(rates) > 0


def test_every_problem_of_a_configuration_is_named_at_once():
    with pytest.raises(TrainingError) as caught:
        TrainingConfig(epochs=0, learning_rate=float("nan"), schedule="linear", augmentation="all")
    message = str(caught.value)
    for word in ("epochs is 0", "learning_rate is nan", "'linear'", "'all'"):
        assert word in message
