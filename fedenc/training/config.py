"""How to train: the optimiser's side of an experiment, as plain frozen dataclasses."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from fedenc.data.augment import AUGMENTATIONS
from fedenc.training import ranges
from fedenc.training.ranges import Rule

SCHEDULES = ("constant", "step", "cosine", "onecycle")
PRECISIONS = ("auto", "fp32", "bf16")
NORMALISATIONS = ("pool", "imagenet", "none")
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean, deviation of R, G, B in 0..1


@dataclass(frozen=True)
class Passes:
    """How a training goes over its images, whatever it minimises. TrainingError lists everything
    that is out of range."""

    title: ClassVar[str] = "training configuration"

    epochs: int = 8  # passes over the images
    batch_size: int = 64  # images a step; an epoch is cut into nearly equal batches of at most this
    augmentation: str = "none"  # of the training images: a name in fedenc.data.augment
    fill: int = 0  # 0..255: value of pixels that augmentation uncovers
    validation: float = 0.0  # fraction held out, stratified
    precision: str = "auto"  # fp32, bf16 (autocast), or bf16 where the hardware computes in it

    def __post_init__(self) -> None:
        ranges.check(self.title, self, self.rules())

    def rules(self) -> Iterable[Rule]:
        """What each value has to be."""
        yield "epochs", self.epochs >= 1, "at least 1"
        yield "batch_size", self.batch_size >= 1, "at least 1"
        known = ", ".join(AUGMENTATIONS)
        yield "augmentation", self.augmentation in AUGMENTATIONS, f"one of {known}"
        yield "fill", 0 <= self.fill <= 255, "0..255"
        yield "validation", 0 <= self.validation < 1, "at least 0 and below 1"
        yield "precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return ranges.plain(self)


@dataclass(frozen=True)
class TrainingConfig(Passes):
    """Stochastic gradient descent on one training set. Where images are held out for validation,
    the weights of the lowest loss on them are kept.

    The defaults suit a few thousand images, a small network and minutes on a CPU.
    """

    learning_rate: float = 0.1  # the schedule's highest
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_all: bool = True  # False: spare biases and normalisation, as later practice does
    label_smoothing: float = 0.0  # in [0, 1)
    clip_norm: float = 0.0  # gradients above this norm are scaled down to it; 0: never
    ema: float = 0.0  # decay a step of averaged weights, which are the result; 0: no average
    schedule: str = "onecycle"  # constant, step, cosine or onecycle
    warmup: float = 0.3  # onecycle: fraction of the run in which the rate rises
    milestones: tuple[float, ...] = ()  # step: fractions of the run after which the rate drops
    gamma: float = 0.1  # step: factor of each drop
    normalisation: str = "pool"  # pool (measured on all images), imagenet, or none (pixels / 255)
    channels_last: bool = True
    compile: bool = False  # torch.compile the step: pays on a GPU over long runs

    def rules(self) -> Iterable[Rule]:
        yield from super().rules()
        yield "learning_rate", 0 < self.learning_rate < math.inf, "a positive number"
        yield "momentum", 0 <= self.momentum < 1, "at least 0 and below 1"
        yield "nesterov", not self.nesterov or self.momentum > 0, "false without momentum"
        yield "weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"
        yield "label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1"
        yield "clip_norm", 0 <= self.clip_norm < math.inf, "0 or more"
        yield "ema", not (self.ema and self.validation), "0 where validation picks the weights"
        yield "ema", 0 <= self.ema < 1, "at least 0 and below 1"
        yield "schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"
        yield "warmup", 0 <= self.warmup < 1, "at least 0 and below 1"
        ascending = list(self.milestones) == sorted(self.milestones)
        within = all(0 < milestone < 1 for milestone in self.milestones)
        expected = "ascending fractions of the run, between 0 and 1"
        yield "milestones", ascending and within, expected
        yield "gamma", 0 < self.gamma <= 1, "above 0 and at most 1"
        known = ", ".join(NORMALISATIONS)
        yield "normalisation", self.normalisation in NORMALISATIONS, f"one of {known}"
