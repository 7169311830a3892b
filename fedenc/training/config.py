"""How to train: the optimiser's side of an experiment, as a plain frozen dataclass."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from fedenc.data.augment import AUGMENTATIONS
from fedenc.errors import TrainingError

SCHEDULES = ("constant", "step", "cosine", "onecycle")
PRECISIONS = ("auto", "fp32", "bf16")
NORMALISATIONS = ("pool", "imagenet", "none")


@dataclass(frozen=True)
class TrainingConfig:
    """Stochastic gradient descent on one pool. TrainingError lists everything that is out of range.

    The defaults suit a few thousand images, a small network and minutes on a CPU.
    """

    epochs: int = 8  # passes over the images
    batch_size: int = 64  # images a step; an epoch is cut into nearly equal batches of at most this
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
    augmentation: str = "none"  # of what is in the pool: a name in fedenc.data.augment
    fill: int = 0  # 0..255: value of pixels that augmentation uncovers
    normalisation: str = "pool"  # pool (measured), imagenet, or none (pixels / 255)
    validation: float = 0.0  # fraction held out, stratified; the weights of lowest loss are kept
    precision: str = "auto"  # fp32, bf16 (autocast), or bf16 where the hardware computes in it
    channels_last: bool = True
    compile: bool = False  # torch.compile the step: pays on a GPU over long runs

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r}; expected {expected}"
            for name, good, expected in (
                ("epochs", self.epochs >= 1, "at least 1"),
                ("batch_size", self.batch_size >= 1, "at least 1"),
                ("learning_rate", 0 < self.learning_rate < math.inf, "a positive number"),
                ("momentum", 0 <= self.momentum < 1, "at least 0 and below 1"),
                ("nesterov", not self.nesterov or self.momentum > 0, "false without momentum"),
                ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
                ("label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1"),
                ("clip_norm", 0 <= self.clip_norm < math.inf, "0 or more"),
                ("ema", not (self.ema and self.validation), "0 where validation picks the weights"),
                ("ema", 0 <= self.ema < 1, "at least 0 and below 1"),
                ("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
                ("warmup", 0 <= self.warmup < 1, "at least 0 and below 1"),
                (
                    "milestones",
                    all(0 < m < 1 for m in self.milestones)
                    and list(self.milestones) == sorted(self.milestones),
                    "ascending fractions of the run, between 0 and 1",
                ),
                ("gamma", 0 < self.gamma <= 1, "above 0 and at most 1"),
                (
                    "augmentation",
                    self.augmentation in AUGMENTATIONS,
                    f"one of {', '.join(AUGMENTATIONS)}",
                ),
                ("fill", 0 <= self.fill <= 255, "0..255"),
                (
                    "normalisation",
                    self.normalisation in NORMALISATIONS,
                    f"one of {', '.join(NORMALISATIONS)}",
                ),
                ("validation", 0 <= self.validation < 1, "at least 0 and below 1"),
                ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            )
            if not good
        ]
        if problems:
            raise TrainingError(f"training configuration: {'; '.join(problems)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self) | {"milestones": list(self.milestones)}
