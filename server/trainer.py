"""What the protocol asks of whoever trains: one worker or several, both fulfil one ``Trainer``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from fedenc.errors import TrainingError
from fedenc.scenario.sections import Model
from fedenc.training.loop import Progress
from fedenc.training.model_files import ModelFiles
from fedenc.training.training_set import room
from server.pool import Pool

PROGRESS_SECONDS = 1.0  # between two reports within an epoch
CHECKPOINT_SECONDS = 5.0  # between two checkpoints, at least; they cost a copy of the weights each
Scores = npt.NDArray[np.float32]
Awaited = Callable[[], Scores]  # waits for scores that are being computed


@dataclass(frozen=True)
class TrainedModel:
    """A model and what it was trained on."""

    files: ModelFiles
    sha256: str  # of the weights
    device: str  # in words
    threads: int
    precision: str  # fp32 or bf16


@dataclass(frozen=True)
class Trained(TrainedModel):
    """The result of training: a model and how it came about."""

    epochs: int
    seconds: float
    images_per_second: float
    final_loss: float
    curve: list[tuple[int, float, float]]  # epoch, mean loss and accuracy on training batches


class Predictor(Protocol):
    """Whoever turns query images into class scores."""

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Awaited:
        """Begin to turn uint8 N×C×H×W into float32 N×classes; ``foreign`` asks the classifier that
        never met the participants' transformation network.

        Returns:
            What waits for the scores. It raises TrainingError where the model cannot take such
            images or its process is lost, and EngineError where it does not answer in time.
        """


class Trainer(Predictor, Protocol):
    """Whoever trains on the pool and then answers queries. It is made before it is needed."""

    def where(self) -> str:
        """Wait until it can start, and say on what device, in words.

        Raises:
            EngineError: Ray cannot place or start it.
        """

    def load(self, pool: Pool) -> None:
        """Take over the images and labels of a pool."""

    def train(
        self,
        state: bytes | None,
        on_progress: Callable[[Progress], None],
        on_checkpoint: Callable[[bytes], None],
        model: Model | None = None,
    ) -> Trained:
        """Train on what was loaded, from the beginning or from a checkpoint; then be ready for
        queries. ``model`` stands in for the scenario's own.

        Raises:
            TrainingError: diverging loss, an unusable checkpoint, or lost processes.
            EngineError: Ray cannot start what is needed.
        """

    def adopt(self, files: ModelFiles, foreign: ModelFiles | None = None) -> None:
        """Answer queries with the models of these files, trained elsewhere.

        Raises:
            EngineError: Ray cannot place or start what is needed.
            TrainingError: the files are no model's.
        """

    def close(self) -> None:
        """Give all resources back, whatever is under way."""


class Pace:
    """Images and seconds of a training, over its reports and its restarts."""

    def __init__(self) -> None:
        self.last: Progress | None = None
        self.curve: dict[int, tuple[float, float]] = {}
        self.images = self.seconds = 0.0

    def add(self, progress: Progress) -> None:
        """Take the next report into account."""
        before = self.last.seconds if self.last is not None else 0.0
        # A process that starts again counts its seconds anew.
        since = progress.seconds - before if progress.seconds >= before else progress.seconds
        self.images += progress.images_per_second * since
        self.seconds += since
        self.last = progress
        self.curve[progress.epoch] = progress.loss, progress.accuracy

    def trained(self, model: TrainedModel) -> Trained:
        """The result of a training that ended with this model.

        Raises:
            TrainingError: it ended without a report.
        """
        if self.last is None:
            raise TrainingError("training ended without a single step")
        return Trained(
            **vars(model),
            epochs=self.last.epochs,
            seconds=self.seconds,
            images_per_second=self.images / self.seconds if self.seconds else 0.0,
            final_loss=self.last.loss,
            curve=[(epoch, *means) for epoch, means in sorted(self.curve.items())],
        )


class ReceivedPool:
    """A pool as it arrives where it is trained on, on the device if it fits there.

    Attributes:
        images: uint8 rows×C×H×W.
        labels: int64 (rows,).
    """

    def __init__(self, rows: int, shape: tuple[int, int, int], device: torch.device) -> None:
        self.images, self.labels = room(rows, shape, device)
        self._filled = 0

    def append(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        """Copy the next rows into place."""
        rows = slice(self._filled, self._filled + len(labels))
        self.images[rows].copy_(torch.from_numpy(images.copy()))
        self.labels[rows].copy_(torch.from_numpy(labels.copy()))
        self._filled = rows.stop


def device_name(device: torch.device) -> str:
    """What a person calls it: the GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
