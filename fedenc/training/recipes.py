"""Recipes: the optimiser's side of the papers' experiments, and our own.

A recipe holds no cipher, no views, no augmentation and no model; those belong to the experiment.
Schedules count in fractions of a run, so that a recipe at a tenth of its length is the same recipe.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from fedenc.errors import TrainingError
from fedenc.training.config import TrainingConfig

_SKK = TrainingConfig(
    epochs=200,
    batch_size=128,
    learning_rate=0.1,
    nesterov=False,
    weight_decay=5e-4,
    schedule="step",
    milestones=(0.3, 0.6, 0.8),  # 60, 120, 160 of 200 epochs
    gamma=0.2,
)

RECIPES: Mapping[str, TrainingConfig] = MappingProxyType(
    {
        # Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019, §IV: ResNet-18
        "skk-resnet18": _SKK,
        # the same, DenseNet (40, 12), after Huang et al. 2017
        "skk-densenet": replace(
            _SKK,
            epochs=300,
            batch_size=64,
            weight_decay=1e-4,
            milestones=(0.5, 0.75),  # 150, 225 of 300 epochs
            gamma=0.1,
        ),
        # Ito, Kinoshita & Kiya 2021, §IV; a tenth held out, as for CIFAR-10 (CIFAR-100: 0.05)
        "ito": replace(_SKK, validation=0.1, normalisation="imagenet"),
        # the same for runs of a few epochs: without a rise to it, the published rate drives the
        # sigmoid of a transformation network to where it has no gradient, and nothing is learned
        "ito-short": replace(
            _SKK,
            epochs=12,
            learning_rate=0.05,
            schedule="onecycle",
            milestones=(),
            validation=0.1,
            normalisation="imagenet",
        ),
        # Chuman & Kiya 2021. "Maximum learning rate 0.0005" as printed; 0.1 may have been meant
        "chuman": TrainingConfig(
            epochs=250,
            batch_size=128,
            learning_rate=5e-4,
            nesterov=False,
            weight_decay=5e-4,
            schedule="onecycle",
        ),
        # Madono, Tanaka, Onishi & Ogawa 2020, as in the code published with the paper
        "madono": TrainingConfig(
            epochs=305,
            batch_size=512,
            learning_rate=0.1,
            weight_decay=5e-4,
            schedule="step",
            milestones=(150 / 305, 225 / 305),
            gamma=0.1,
            normalisation="none",
        ),
        # ours: good accuracy within minutes
        "fast": TrainingConfig(),
    }
)


def recipe(name: str, *, scale: float = 1.0, **changes: Any) -> TrainingConfig:
    """The recipe of that name, for ``scale`` (above 0) of its epochs, with ``changes``.

    A change of ``epochs`` is taken as it is. TrainingError for names and values that do not exist.
    """
    if name not in RECIPES:
        raise TrainingError(f"recipe is {name!r}; expected one of {', '.join(RECIPES)}")
    if not 0 < scale < float("inf"):
        raise TrainingError(f"scale is {scale}; expected a number above 0, such as 0.05")
    chosen = RECIPES[name]
    unknown = sorted(set(changes) - set(chosen.as_dict()))
    if unknown:
        known = ", ".join(chosen.as_dict())
        raise TrainingError(f"training.{unknown[0]} does not exist; expected one of {known}")
    epochs = max(1, round(chosen.epochs * scale))
    return replace(chosen, **({"epochs": epochs} | changes))
