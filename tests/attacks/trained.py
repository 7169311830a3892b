"""Targets with a model, as a provider trains it on what was uploaded."""

import dataclasses

import torch

from fedenc import models
from fedenc.attacks.base import Model
from fedenc.attacks.target import Target
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit
from fedenc.training.training_set import TrainingSet

CPU = torch.device("cpu")
OVERFITTING = TrainingConfig(epochs=15, batch_size=32, learning_rate=0.03, precision="fp32")


def trained(
    target: Target,
    config: TrainingConfig = OVERFITTING,
    network: str = "tiny",
    input: str = "raw",
    seed: int = 0,
) -> Target:
    """The same target, and a model that was trained on its uploads."""
    images = target.uploads.images
    assert target.public is not None
    assert target.shown is not None
    channels, height, width = images.shape[1:]
    made = models.build(
        network,
        channels=channels,
        classes=target.public.classes,
        size=(height, width),
        input=input,
        seed=seed,
    )
    run = fit(made, TrainingSet(images, target.labels), config, seed=seed, device=CPU)
    for _ in run:
        pass
    return dataclasses.replace(
        target, model=Model(run.model.eval(), config), trained_on=target.shown >= 0
    )
