"""The training loop: a pool of protected images in, a trained model out, progress on the way.

::

    run = fit(model, images, labels, config=config, seed=1, device=device)
    for progress in run:                   # after every epoch, more often if asked
        write_atomically(path, run.checkpoint())

``fit(..., state=path.read_bytes())`` continues such a run; on a CPU with the same number of threads
it ends with the same weights, bit for bit, wherever it was stopped.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from fedenc.data import augment
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training import checkpoint, identity, rng, validation
from fedenc.training.config import TrainingConfig
from fedenc.training.plan import Plan, make_plan, steps_per_epoch
from fedenc.training.pool import Pool, check_labels
from fedenc.training.predict import check_images
from fedenc.training.schedule import learning_rate
from fedenc.training.stepper import Stepper

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean, deviation of R, G, B in 0..1

HOPELESS = 100.0  # a mean loss so many times that of guessing counts as diverged

Snapshot = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Progress:
    """Where a run is. Loss and accuracy are means over the epoch so far, on training batches."""

    epoch: int  # 1-based number of the epoch that the last step belonged to
    epochs: int
    step: int  # steps done in the whole run
    steps: int
    loss: float  # what is minimised: cross-entropy in nats, plus the model's penalty
    accuracy: float  # 0..1
    images_per_second: float  # since the last report
    seconds: float  # spent in the loop by this process, without its caller's pauses
    seconds_left: float  # at the pace since the last report
    learning_rate: float  # of the last step
    validation_loss: float | None = None  # after the last whole epoch, where images are held out

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


def fit(
    model: Network,
    images: Tensor,
    labels: Tensor,
    *,
    config: TrainingConfig,
    seed: int,
    device: torch.device,
    views: int = 1,
    state: bytes | None = None,
    every_steps: int | None = None,
    every_seconds: float | None = None,
    rank: int = 0,
    world: int = 1,
) -> "Run":
    """Train ``model`` in place on uint8 N×C×H×W images with int64 N labels.

    Rows come sorted by image, then view: image m owns rows m·views to m·views + views − 1, of which
    each epoch visits one. The order of samples and all augmentation derive from ``seed`` alone.
    Iterate over the result to train: it reports at the end of every epoch, and in between after
    ``every_steps`` steps or ``every_seconds`` seconds. ``state`` is an earlier ``Run.checkpoint()``
    of the same run. The number of threads is the caller's to set.

    With ``world`` > 1 this is worker ``rank`` of an initialised torch.distributed group whose
    members all call ``fit`` with the same arguments: each takes its share of every batch.

    TrainingError: arguments that do not fit, a checkpoint of another run, diverging loss.
    """
    reports, worker = Reports(every_steps, every_seconds), Worker(rank, world)
    return Run(model, images, labels, config, seed, device, views, state, reports, worker)


class Run(Iterator[Progress]):
    """A run under way: an iterator over its reports."""

    def __init__(
        self,
        model: Network,
        images: Tensor,
        labels: Tensor,
        config: TrainingConfig,
        seed: int,
        device: torch.device,
        views: int,
        state: bytes | None,
        reports: Reports,
        worker: Worker,
    ) -> None:
        check_images(model, images)
        check_labels(labels, len(images), model.architecture.classes, views)
        if worker.world > 1 and reports.seconds:
            raise TrainingError("every_seconds is set; several workers can only report by steps")
        self.model, self.config, self.seed, self.device = model, config, seed, device
        self._views, self._reports, self._worker = views, reports, worker
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
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
        self._pool = Pool(images, labels, device)
        _normalise(model, self._pool.images, config.normalisation)
        self._identity = identity.describe(
            model.architecture, config, images, labels, seed=seed, views=views
        )
        self._stepper = Stepper(model, config, device, worker.world)
        self._dropout = rng.GlobalStream(seed, "dropout", worker.rank, device=device)
        self._plan: tuple[int, Plan] | None = None
        self._step, self._seen, self._seconds = 0, 0, 0.0
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._validation_loss: float | None = None
        self._best: dict[str, Tensor] = {}  # weights of the lowest validation loss
        self._best_loss = math.inf
        if state is not None:
            checkpoint.resume(state, self._identity, self._put_back)
        self._good = self._capture()
        self._events = self._run()

    def __next__(self) -> Progress:
        return next(self._events)

    @property
    def precision(self) -> str:
        """What "auto" came to: "fp32" or "bf16"."""
        return self._stepper.precision

    def checkpoint(self) -> bytes:
        """The run as of the last report (or the start), even after an error: weights, optimiser,
        random state, position. Equal states give equal bytes."""
        return checkpoint.pack(*self._good)

    def _run(self) -> Iterator[Progress]:
        if self._step == self.steps:  # a finished run, resumed
            self._conclude()
            yield self._report(self._means(), 0, 0, 0.0)
        while self._step < self.steps:
            start, first = time.perf_counter(), self._step
            with self._dropout.active():
                visited = self._advance(start)
            means = self._means()
            self._check_finite(means[0])
            if self._held_out is not None and self._step % self._epoch_steps == 0:
                self._validate(self._held_out)
            seconds = time.perf_counter() - start
            self._seconds += seconds
            self._good = self._capture()
            self._conclude()
            yield self._report(means, self._step - first, visited, seconds)

    def _advance(self, start: float) -> int:
        """Train until a report is due; returns the number of images visited by all workers."""
        self.model.train()
        epoch, first = divmod(self._step, self._epoch_steps)
        if first == 0:
            self._seen = 0
            self._loss.zero_()
            self._correct.zero_()
        plan = self._plan_of(epoch)
        last = self._epoch_steps
        if self._reports.steps:
            last = min(last, first + self._reports.steps - self._step % self._reports.steps)
        numbers = range(first, last)
        parts = [plan.batch(n, self._worker.rank, self._worker.world) for n in numbers]
        batches = self._pool.batches(rows for rows, _, _ in parts)
        visited = 0
        for (_, draws, size), (images, labels) in zip(parts, batches, strict=True):
            if draws is not None:
                images = augment.apply(images, draws, fill=self.config.fill)
            rate = learning_rate(self.config, self._step, self.steps)
            measured = self._stepper.step(images, labels, whole=size, rate=rate, number=self._step)
            self._loss += measured.loss
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
                views=self._views,
                augmentation=self._augmentation,
                batch_size=self.config.batch_size,
                seed=self.seed,
                epoch=epoch,
                home=self._pool.home,
                device=self.device,
            )
            self._plan = (epoch, plan)
        return self._plan[1]

    def _means(self) -> tuple[float, float]:
        """Loss and accuracy of the epoch so far, over all workers. Waits for the device."""
        sums = torch.stack((self._loss, self._correct.double(), self._loss.new_tensor(self._seen)))
        if self._worker.world > 1:
            torch.distributed.all_reduce(sums)
        loss, correct, seen = sums.tolist()
        return loss / max(seen, 1), correct / max(seen, 1)

    def _report(
        self, means: tuple[float, float], steps: int, visited: int, seconds: float
    ) -> Progress:
        return Progress(
            epoch=-(-self._step // self._epoch_steps),
            epochs=self.config.epochs,
            step=self._step,
            steps=self.steps,
            loss=means[0],
            accuracy=means[1],
            images_per_second=visited / seconds if seconds else 0.0,
            seconds=self._seconds,
            seconds_left=(self.steps - self._step) * seconds / max(steps, 1),
            learning_rate=learning_rate(self.config, max(self._step - 1, 0), self.steps),
            validation_loss=self._validation_loss,
        )

    def _check_finite(self, loss: float) -> None:
        """Stop on a loss or a weight that is out of hand, with the last good weights in place."""
        size = weights_norm(self.model.parameters())
        if bearable(loss, self.model.architecture.classes) and math.isfinite(size):
            return
        failed = self._step
        self._put_back(*self._good)
        rate = learning_rate(self.config, max(failed - 1, 0), self.steps)
        raise TrainingError(
            f"training diverged before step {failed} of {self.steps}: loss {loss:.4g}, norm of the "
            f"weights {size:.4g}, learning rate {rate:.4g}; the weights of step {self._step} are "
            f"kept; try a learning_rate below {self.config.learning_rate:g} or clip_norm = 1"
        )

    def _validate(self, held_out: Tensor) -> None:
        """Keep the weights if no earlier epoch did better on the first view of held-out images."""
        rows = (held_out * self._views).to(self._pool.home)
        loss = validation.mean_loss(self.model, self._pool, rows, self.config.precision)
        self._validation_loss = loss
        if loss < self._best_loss:
            self._best_loss = loss
            self._best = {n: t.detach().clone() for n, t in self.model.state_dict().items()}

    def _conclude(self) -> None:
        """At the end, make the result of the run the model's weights. Checkpoints hold the run's
        own beside it, so that this can be done again."""
        if self._step < self.steps:
            return
        if self._best:
            self.model.load_state_dict(self._best)
        self._stepper.adopt_average()

    def _capture(self) -> Snapshot:
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self._best.items()}
        tensors |= self._stepper.tensors()
        tensors |= {f"rng.{name}": t for name, t in self._dropout.state().items()}
        tensors |= {"meter.loss": self._loss, "meter.correct": self._correct}
        document = {
            "version": checkpoint.VERSION,
            "step": self._step,
            "seen": self._seen,
            "validation_loss": self._validation_loss,
            "best_loss": self._best_loss if self._best else None,
            "run": self._identity,
        }
        return {name: t.detach().clone() for name, t in tensors.items()}, document

    def _put_back(self, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            start = len(prefix)
            return {name[start:]: t for name, t in tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        self._best = {name: t.to(self.device) for name, t in under("best.").items()}
        self._best_loss = document["best_loss"] if self._best else math.inf
        self._validation_loss = document["validation_loss"]
        self._stepper.restore(tensors, steps=document["step"])
        self._dropout.restore(under("rng."))
        self._loss.copy_(tensors["meter.loss"])
        self._correct.copy_(tensors["meter.correct"])
        self._step, self._seen = int(document["step"]), int(document["seen"])


def bearable(loss: float, classes: int) -> bool:
    """Whether a mean loss in nats is a number, and not many times that of guessing."""
    return math.isfinite(loss) and loss <= HOPELESS * math.log(classes)


def weights_norm(parameters: Iterable[Tensor]) -> float:
    """Sum of the tensors' norms: finite only if all weights are. Waits for the device."""
    return torch.stack(torch._foreach_norm(list(parameters))).sum().item()


def _normalise(model: Network, images: Tensor, normalisation: str) -> None:
    channels = images.shape[1]
    if normalisation == "pool":
        model.input.measure(images)
    elif normalisation == "imagenet":
        model.input.set(*IMAGENET)
    else:
        model.input.set([0.0] * channels, [1.0] * channels)
