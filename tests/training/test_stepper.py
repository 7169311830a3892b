"""Another mathematics on the same run: gradients clipped one by one, and noise added."""

from typing import Any

import pytest
import torch
from tiny import examples, network
from torch import Tensor

from fedenc.errors import TrainingError
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Reports, Run
from fedenc.training.model_files import weights_sha256
from fedenc.training.sgd import SgdStepper
from fedenc.training.stepper import Measured, Step

CPU = torch.device("cpu")
CONFIG = TrainingConfig(epochs=2, batch_size=8, learning_rate=0.05, precision="fp32")


class PrivateStepper(SgdStepper):
    """Differentially private SGD at its shortest (Abadi et al., CCS 2016, algorithm 1)."""

    losses = ("loss", "norm")
    clip, noise = 1.0, 0.5

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"noise": self.noise}

    def step(self, images: Tensor, labels: Tensor, at: Step) -> Measured:
        parameters = list(self.model.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        sums = torch.zeros(2)
        self.model.eval()  # batch normalisation would mix the images
        for image, label in zip(images, labels, strict=True):
            loss, _ = self._loss(image[None], label[None])
            gradients = torch.autograd.grad(loss, parameters)
            norm = torch.stack([g.norm() for g in gradients]).norm()
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_ += gradient * (self.clip / norm).clamp_max(1)
            sums += torch.stack((loss.detach(), norm))
        for p, sum_ in zip(parameters, total, strict=True):
            # From torch's global generators, which are the run's own here
            p.grad = (sum_ + self.noise * self.clip * torch.randn_like(p)) / len(images)
        self._update(at)
        return Measured(sums, torch.zeros((), dtype=torch.int64))


def start(seed: int = 0, **keywords: Any) -> Run[Any]:
    stepper = PrivateStepper(network(seed), CONFIG, CPU)
    return Run(stepper, examples(24), **({"seed": 1} | keywords))


def test_a_stepper_of_ones_own_is_resumed_with_the_same_noise() -> None:
    run = start(reports=Reports(steps=1))
    states = []
    for _ in run:
        torch.rand(1)
        states.append(run.checkpoint())
    whole = start()
    reports = list(whole)
    assert weights_sha256(whole.model) == weights_sha256(run.model)
    assert reports[-1].parts["norm"] > 0
    for state in states:
        again = start(seed=9, state=state)
        assert list(again)[-1].parts == reports[-1].parts
        assert weights_sha256(again.model) == weights_sha256(whole.model)


def test_what_makes_it_another_training_is_its_own_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    state = start().checkpoint()
    monkeypatch.setattr(PrivateStepper, "noise", 0.1)
    with pytest.raises(TrainingError, match=r"noise was 0\.5 and is 0\.1"):
        start(state=state)
