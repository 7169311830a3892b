"""What a run needs of the mathematics of a training; :mod:`fedenc.training.sgd` is one kind.

Another kind of training (adversarial, differentially private, local to a participant) is another
stepper on the same :class:`fedenc.training.loop.Run`, which owns everything else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fedenc.training.config import Passes
from fedenc.training.plan import Plan
from fedenc.training.training_set import Batch

M_co = TypeVar("M_co", bound=nn.Module, covariant=True)


class Measured(NamedTuple):
    """Sums over the samples of a batch, still on the device."""

    losses: Tensor  # float K, one for each of the stepper's ``losses``
    correct: Tensor  # int64: samples that are classified correctly


@dataclass(frozen=True)
class Step:
    """Which step of a run this is."""

    number: int  # 0-based, in the whole run
    steps: int  # in the whole run
    images: int  # in the batch, over all workers


class Stepper(Protocol[M_co]):
    """Networks, loss and optimisers: one step at a time, without waiting for the device.

    What needs random numbers may draw them from torch's global generators within ``step``: there
    they are the run's own, seeded and resumed with it.
    """

    device: torch.device
    precision: str  # "fp32" or "bf16": what the configuration's "auto" came to
    classes: int  # labels are 0..classes − 1
    remedy: str  # what to try where training diverges

    @property
    def config(self) -> Passes:
        """How to go over the images."""

    @property
    def model(self) -> M_co:
        """What is trained, on the device; the caller's after the run."""

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of what ``step`` measures; one of them is "loss", what is minimised."""

    def prepare(self, images: Tensor) -> None:
        """Called once, before the first step: check all images, uint8 N×C×H×W, and measure on them
        what has to be measured.

        Raises:
            TrainingError: the images do not fit.
        """

    def identity(self) -> dict[str, Any]:
        """What decides the result of this training, as JSON values: a checkpoint of another one is
        refused. Seed and training set are added by the run."""

    def enter(self, epoch: int, plan: Plan) -> None:
        """Called before the steps of an epoch (0-based): at its start, and after every report."""

    def step(self, images: Tensor, labels: Tensor, at: Step) -> Measured:
        """Train on this worker's share of a batch: uint8 B×C×H×W, augmented, and int64 B."""

    def learning_rate(self, step: int, steps: int) -> float:
        """The rate of step ``step`` (0-based) in a run of ``steps``."""

    def weights(self) -> Iterable[Tensor]:
        """All tensors that training changes by gradients: they have to stay finite."""

    def validate(self, batches: Iterable[Batch]) -> float:
        """The mean loss on held-out images; called after each whole epoch, if there are such."""

    def conclude(self) -> None:
        """Called at the end of the run: make its result the model's weights."""

    def tensors(self) -> dict[str, Tensor]:
        """All that changes in a run, for a checkpoint."""

    def restore(self, tensors: Mapping[str, Tensor], *, steps: int) -> None:
        """The inverse of ``tensors`` after ``steps`` steps; KeyError if something is not there."""
