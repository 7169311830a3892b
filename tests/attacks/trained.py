"""Targets with a model, as a provider trains it on what was uploaded."""

import dataclasses
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from victims import victims

from fedenc import ciphers, models
from fedenc.attacks.base import Model
from fedenc.attacks.target import Target, make_target
from fedenc.keys import KeyRing, Policy
from fedenc.protection import Keyed, Protection
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit
from fedenc.training.training_set import TrainingSet

CPU = torch.device("cpu")
OWNERS = 4
OVERFITTING = TrainingConfig(epochs=15, batch_size=32, learning_rate=0.03, precision="fp32")


def small(cipher: str, policy: Policy, count: int = 50) -> Target:
    """Photographs under keys, which are the same in every run where images share them."""
    made = ciphers.make(cipher)
    rings = (KeyRing.simulated("victims", i, shared=policy == "same") for i in range(OWNERS))
    return uploaded({i: Keyed(made, ring, policy) for i, ring in enumerate(rings)}, count)


def uploaded(protections: Mapping[int, Protection], count: int = 50) -> Target:
    """As ``victims``, of half the height and width: networks train in a quarter of the time."""
    whole = victims("none", "same", count, OWNERS)
    assert whole.public is not None
    assert whole.candidates is not None
    return make_target(
        protections,
        _halved(whole.plain),
        whole.labels,
        whole.uploads.owners,
        public=dataclasses.replace(whole.public, images=_halved(whole.public.images)),
        candidates=_halved(whole.candidates),
        candidate_labels=whole.candidate_labels,
        shown=whole.shown,
    )


def _halved(images: Tensor) -> Tensor:
    return F.avg_pool2d(images.float(), 2).round().to(torch.uint8)


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
    owners = len(target.protections)
    model = Model(run.model.eval(), config, len(images), owners=owners)
    return dataclasses.replace(target, model=model, trained_on=target.shown >= 0)
