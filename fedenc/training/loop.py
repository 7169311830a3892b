"""The training loop: images in, a trained model out, progress on the way.

::

    run = fit(model, TrainingSet(images, labels), config, seed=1, device=device)
    for progress in run:                   # after every epoch, more often if asked
        write_atomically(path, run.checkpoint())

``fit(..., state=path.read_bytes())`` continues such a run; on a CPU with the same number of threads
it ends with the same weights, bit for bit, wherever it was stopped.

A run owns the order of images, progress, checkpoints and resuming, and stops on diverging loss.
What happens to a batch is its stepper's: see :mod:`fedenc.training.stepper`.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from fedenc.data import augment
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training import checkpoint, identity, rng, validation
from fedenc.training.config import TrainingConfig
from fedenc.training.plan import Plan, make_plan, steps_per_epoch
from fedenc.training.sgd import SgdStepper
from fedenc.training.stepper import Step, Stepper
from fedenc.training.training_set import TrainingSet, check_labels

DIVERGED = 100.0  # a mean loss above so many times that of guessing counts as diverged
_VALIDATED = 512  # held-out images computed at once

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Progress:
    """Where a run is. Loss and accuracy are means over the epoch so far, on training batches."""

    epoch: int  # 1-based number of the epoch that the last step belonged to
    epochs: int
    step: int  # steps done in the whole run
    steps: int
    loss: float  # what is minimised, such as cross-entropy in nats plus the model's penalty
    accuracy: float  # 0..1
    images_per_second: float  # since the last report
    seconds: float  # spent in the loop by this process, without its caller's pauses
    seconds_left: float  # at the pace since the last report
    learning_rate: float  # of the last step
    validation_loss: float | None = None  # after the last whole epoch, where images are held out
    parts: Mapping[str, float] = field(default_factory=dict)  # further losses, by name

    @property
    def done(self) -> bool:
        return self.step == self.steps

    def __str__(self) -> str:
        text = (
            f"epoch {self.epoch}/{self.epochs}, loss {self.loss:.3f}, "
            f"{self.images_per_second:,.0f} images/s"
        )
        left = timedelta(seconds=round(self.seconds_left))
        return text if self.done else f"{text}, {left} left"


@dataclass(frozen=True)
class Reports:
    """When to report within an epoch: after so many steps of the run, or so many seconds."""

    steps: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Worker:
    """One of ``world`` processes of a torch.distributed group that train the same model."""

    rank: int = 0
    world: int = 1


EACH_EPOCH = Reports()
ALONE = Worker()


def fit(
    model: Network,
    training_set: TrainingSet,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    state: bytes | None = None,
    reports: Reports = EACH_EPOCH,
    worker: Worker = ALONE,
) -> "Run[Network]":
    """Train ``model`` in place by stochastic gradient descent. Iterate over the result to train.

    See ``Run``. The number of threads is the caller's to set. TrainingError: arguments that do not
    fit, a checkpoint of another run, diverging loss.
    """
    stepper = SgdStepper(model, config, device, worker.world)
    return Run(stepper, training_set, seed=seed, state=state, reports=reports, worker=worker)


class Run(Iterator[Progress], Generic[M]):
    """A training under way: an iterator over its reports, of which each epoch's end makes one.

    Every epoch visits each image once, in one of its views. The order of samples and all
    augmentation derive from ``seed`` alone.

    Args:
        stepper: what to do with each batch, and how to go over the images.
        training_set: what to train on.
        seed: of everything random.
        state: an earlier ``checkpoint()`` of the same run.
        reports: when to report within an epoch.
        worker: with ``world`` > 1, which member this is of an initialised torch.distributed group
            whose members all make the same run; each takes its share of every batch.

    Raises:
        TrainingError: arguments that do not fit, a checkpoint of another run; while it trains,
            diverging loss.
    """

    def __init__(
        self,
        stepper: Stepper[M],
        training_set: TrainingSet,
        *,
        seed: int,
        state: bytes | None = None,
        reports: Reports = EACH_EPOCH,
        worker: Worker = ALONE,
    ) -> None:
        images, labels, views = training_set.images, training_set.labels, training_set.views
        config, self.device = stepper.config, stepper.device
        check_labels(labels, len(images), stepper.classes, views)
        if worker.world > 1 and reports.seconds:
            raise TrainingError("reports.seconds is set; several workers can only report by steps")
        self._stepper, self._config, self._seed = stepper, config, seed
        self._reports, self._worker = reports, worker
        self._augmentation = augment.named(config.augmentation)
        self._images, self._held_out = validation.split(
            labels[::views].cpu(), config.validation, seed
        )
        self._epoch_steps = steps_per_epoch(
            len(self._images), self._augmentation, config.batch_size
        )
        self.steps = config.epochs * self._epoch_steps
        if len(self._images) * self._augmentation.copies // self._epoch_steps < worker.world:
            raise TrainingError(
                f"batch_size is {config.batch_size}; expected at least one image for each of the "
                f"{worker.world} workers"
            )
        self._set = training_set.placed(self.device)
        stepper.prepare(self._set.images)
        self._identity = identity.of_data(training_set, seed) | stepper.identity()
        # For dropout, and whatever else a step draws from torch's global generators
        self._random = rng.GlobalStream(seed, "dropout", worker.rank, device=self.device)
        self._plan: tuple[int, Plan] | None = None
        self._step, self._seen, self._seconds = 0, 0, 0.0
        self._losses = torch.zeros(len(stepper.losses), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._validation_loss: float | None = None
        if state is not None:
            checkpoint.resume(state, self._identity, self._put_back)
        self._saved = self._capture()
        self._progress = self._run()

    def __next__(self) -> Progress:
        return next(self._progress)

    @property
    def model(self) -> M:
        """What is trained."""
        return self._stepper.model

    @property
    def precision(self) -> str:
        """What "auto" came to: "fp32" or "bf16"."""
        return self._stepper.precision

    def checkpoint(self) -> bytes:
        """The run as of the last report (or the start), even after an error: weights, optimiser,
        random state, position. Equal states give equal bytes."""
        return checkpoint.pack(*self._saved)

    def _run(self) -> Iterator[Progress]:
        if self._step == self.steps:  # a finished run, resumed
            self._stepper.conclude()
            yield self._report(self._means(), 0, 0, 0.0)
        while self._step < self.steps:
            start, first = time.perf_counter(), self._step
            with self._random.active():
                visited = self._advance(start)
            means = self._means()
            self._stop_if_diverged(means)
            if self._held_out is not None and self._step % self._epoch_steps == 0:
                self._validate(self._held_out)
            seconds = time.perf_counter() - start
            self._seconds += seconds
            self._saved = self._capture()
            if self._step == self.steps:  # a checkpoint is of what this starts from
                self._stepper.conclude()
            yield self._report(means, self._step - first, visited, seconds)

    def _advance(self, start: float) -> int:
        """Train until a report is due; returns the number of images visited by all workers."""
        epoch, first = divmod(self._step, self._epoch_steps)
        if first == 0:
            self._seen = 0
            self._losses.zero_()
            self._correct.zero_()
        plan = self._plan_of(epoch)
        self._stepper.enter(epoch, plan)
        last = self._epoch_steps
        if self._reports.steps:
            last = min(last, first + self._reports.steps - self._step % self._reports.steps)
        numbers = range(first, last)
        parts = [plan.batch(n, self._worker.rank, self._worker.world) for n in numbers]
        batches = self._set.batches((rows for rows, _, _ in parts), self.device)
        visited = 0
        for (_, draws, size), (images, labels) in zip(parts, batches, strict=True):
            if draws is not None:
                images = augment.apply(images, draws, fill=self._config.fill)
            measured = self._stepper.step(images, labels, Step(self._step, self.steps, size))
            self._losses += measured.losses
            self._correct += measured.correct
            self._seen += len(images)
            self._step += 1
            visited += size
            if self._reports.seconds and time.perf_counter() - start >= self._reports.seconds:
                break
        return visited

    def _plan_of(self, epoch: int) -> Plan:
        if self._plan is None or self._plan[0] != epoch:
            plan = make_plan(
                self._images,
                views=self._set.views,
                augmentation=self._augmentation,
                batch_size=self._config.batch_size,
                seed=self._seed,
                epoch=epoch,
                home=self._set.images.device,
                device=self.device,
            )
            self._plan = (epoch, plan)
        return self._plan[1]

    def _means(self) -> dict[str, float]:
        """Losses and accuracy of the epoch so far, over all workers. Waits for the device."""
        counts = torch.stack((self._correct.double(), self._losses.new_tensor(self._seen)))
        sums = torch.cat((self._losses, counts))
        if self._worker.world > 1:
            torch.distributed.all_reduce(sums)
        *means, seen = sums.tolist()
        names = (*self._stepper.losses, "accuracy")
        return {name: mean / max(seen, 1) for name, mean in zip(names, means, strict=True)}

    def _report(
        self, means: Mapping[str, float], steps: int, visited: int, seconds: float
    ) -> Progress:
        return Progress(
            epoch=-(-self._step // self._epoch_steps),
            epochs=self._config.epochs,
            step=self._step,
            steps=self.steps,
            loss=means["loss"],
            accuracy=means["accuracy"],
            images_per_second=visited / seconds if seconds else 0.0,
            seconds=self._seconds,
            seconds_left=(self.steps - self._step) * seconds / max(steps, 1),
            learning_rate=self._rate(),
            validation_loss=self._validation_loss,
            parts={name: means[name] for name in self._stepper.losses if name != "loss"},
        )

    def _rate(self) -> float:
        """The learning rate of the last step."""
        return self._stepper.learning_rate(max(self._step - 1, 0), self.steps)

    def _stop_if_diverged(self, means: Mapping[str, float]) -> None:
        """Stop on a loss or a weight that is out of hand, with the last good weights in place."""
        losses = {name: means[name] for name in self._stepper.losses}
        most = DIVERGED * math.log(self._stepper.classes)
        # A sum of norms, which is finite only if all weights are. Waits for the device.
        norm = torch.stack(torch._foreach_norm(list(self._stepper.weights()))).sum().item()
        if math.isfinite(norm) and all(-math.inf < loss <= most for loss in losses.values()):
            return
        failed, rate = self._step, self._rate()
        self._put_back(*self._saved)
        found = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
        raise TrainingError(
            f"training diverged before step {failed} of {self.steps}: {found}, norm of the weights "
            f"{norm:.4g}, learning rate {rate:.4g}; the weights of step {self._step} are kept; "
            f"{self._stepper.remedy}"
        )

    def _validate(self, held_out: Tensor) -> None:
        """On the first view of held-out images."""
        rows = (held_out * self._set.views).to(self._set.images.device)
        batches = self._set.batches(torch.split(rows, _VALIDATED), self.device)
        self._validation_loss = self._stepper.validate(batches)

    def _capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self._stepper.tensors()
        tensors |= {f"random.{name}": t for name, t in self._random.state().items()}
        tensors |= {"sum.losses": self._losses, "sum.correct": self._correct}
        document = {
            "version": checkpoint.VERSION,
            "step": self._step,
            "seen": self._seen,
            "validation_loss": self._validation_loss,
            "run": self._identity,
        }
        return {name: t.detach().clone() for name, t in tensors.items()}, document

    def _put_back(self, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
        start = "random."
        states = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
        self._stepper.restore(tensors, steps=document["step"])
        self._random.restore(states)
        self._losses.copy_(tensors["sum.losses"])
        self._correct.copy_(tensors["sum.correct"])
        self._validation_loss = document["validation_loss"]
        self._step, self._seen = int(document["step"]), int(document["seen"])
