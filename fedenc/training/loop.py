"""The training loop: a pool of protected images in, a trained model out, progress on the way.

::

    run = fit(model, images, labels, config=config, seed=1, device=device)
    for progress in run:                   # after every epoch, more often if asked
        checkpoint.write_atomic(path, run.checkpoint())

``fit(..., state=path.read_bytes())`` continues such a run; on a CPU with the same number of threads
it ends with the same weights, bit for bit, wherever it was stopped.
"""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedenc.data import augment
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training import checkpoint, rng
from fedenc.training.config import TrainingConfig
from fedenc.training.plan import Plan, make_plan, steps_per_epoch
from fedenc.training.pool import Pool, check_labels
from fedenc.training.predict import check_images
from fedenc.training.schedule import learning_rate
from fedenc.training.stepper import Stepper

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean, deviation of R, G, B in 0..1


@dataclass(frozen=True)
class Progress:
    """Where a run is. Loss and accuracy are means over the epoch so far, on training batches."""

    epoch: int  # 1-based number of the epoch that the last step belonged to
    epochs: int
    step: int  # steps done in the whole run
    steps: int
    loss: float  # cross-entropy in nats
    accuracy: float  # 0..1
    images_per_second: float  # since the last report
    seconds: float  # spent in the loop by this process, without its caller's pauses

    @property
    def done(self) -> bool:
        return self.step == self.steps


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
) -> "Run":
    """Train ``model`` in place on uint8 N×C×H×W images with int64 N labels.

    Rows come sorted by image, then view: image m owns rows m·views to m·views + views − 1, of which
    each epoch visits one. The order of samples and all augmentation derive from ``seed`` alone.
    Iterate over the result to train: it reports at the end of every epoch, and in between after
    ``every_steps`` steps or ``every_seconds`` seconds. ``state`` is an earlier ``Run.checkpoint()``
    of the same run. The number of threads is the caller's to set.

    TrainingError: arguments that do not fit, a checkpoint of another run, diverging loss.
    """
    report = (every_steps, every_seconds)
    return Run(model, images, labels, config, seed, device, views, state, *report)


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
        every_steps: int | None,
        every_seconds: float | None,
    ) -> None:
        check_images(model, images)
        check_labels(labels, len(images), model.architecture.classes, views)
        self.model, self.config, self.seed, self.device = model, config, seed, device
        self.views, self.every_steps, self.every_seconds = views, every_steps, every_seconds
        self._augmentation = augment.named(config.augmentation)
        self._images = torch.arange(len(images) // views)
        self._epoch_steps = steps_per_epoch(
            len(self._images), self._augmentation, config.batch_size
        )
        self.steps = config.epochs * self._epoch_steps

        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
        self._pool = Pool(images, labels, device)
        _normalise(model, self._pool.images, config.normalisation)
        self._identity = self._describe(images, labels)
        self._stepper = Stepper(model, config, device)
        self._dropout = rng.GlobalStream(seed, "dropout", device=device)
        self._step, self._seen = 0, 0
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._seconds = 0.0
        if state is not None:
            self._restore(state)
        self._good = self._capture()
        self._reports = self._run()

    def __next__(self) -> Progress:
        return next(self._reports)

    def checkpoint(self) -> bytes:
        """The run as of the last report (or the start), even after an error: weights, optimiser,
        random state, position. Equal states give equal bytes."""
        tensors, document = self._good
        return checkpoint.pack(tensors, document)

    def _run(self) -> Iterator[Progress]:
        if self._step == self.steps:  # a finished run, resumed
            self._conclude()
            yield self._report(0, 0.0)
        while self._step < self.steps:
            start = time.perf_counter()
            with self._dropout.active():
                visited = self._advance(start)
            self._check_finite()
            seconds = time.perf_counter() - start
            self._seconds += seconds
            self._good = self._capture()
            self._conclude()
            yield self._report(visited, seconds)

    def _advance(self, start: float) -> int:
        """Train until a report is due; returns the number of samples visited."""
        self.model.train()
        epoch, first = divmod(self._step, self._epoch_steps)
        if first == 0:
            self._seen = 0
            self._loss.zero_()
            self._correct.zero_()
        plan = self._plan(epoch)
        visited = 0
        for number in range(first, self._epoch_steps):
            rows, draws, size = plan.batch(number)
            images, labels = self._pool.batch(rows)
            if draws is not None:
                images = augment.apply(images, draws, fill=self.config.fill)
            rate = learning_rate(self.config, self._step, self.steps)
            measured = self._stepper.step(images, labels, rate=rate, number=self._step)
            self._loss += measured.loss
            self._correct += measured.correct
            self._seen += len(rows)
            self._step += 1
            visited += size
            if self.every_steps and self._step % self.every_steps == 0:
                break
            if self.every_seconds and time.perf_counter() - start >= self.every_seconds:
                break
        return visited

    def _conclude(self) -> None:
        """At the end, make the result of the run the model's weights. Checkpoints hold the run's
        own, so that this can be done again."""
        if self._step == self.steps and self._stepper.averaged:
            self._stepper.adopt_average()

    def _plan(self, epoch: int) -> Plan:
        return make_plan(
            self._images,
            views=self.views,
            augmentation=self._augmentation,
            batch_size=self.config.batch_size,
            seed=self.seed,
            epoch=epoch,
            device=self.device,
        )

    def _report(self, visited: int, seconds: float) -> Progress:
        return Progress(
            epoch=-(-self._step // self._epoch_steps),
            epochs=self.config.epochs,
            step=self._step,
            steps=self.steps,
            loss=self._loss.item() / max(self._seen, 1),
            accuracy=self._correct.item() / max(self._seen, 1),
            images_per_second=visited / seconds if seconds else 0.0,
            seconds=self._seconds,
        )

    def _check_finite(self) -> None:
        """Stop on a loss or a weight that is not a number, with the last good weights in place."""
        weights = torch.stack(torch._foreach_norm(list(self.model.parameters()))).sum()
        loss, size = self._loss.item() / max(self._seen, 1), weights.item()
        if math.isfinite(loss) and math.isfinite(size):
            return
        failed = self._step
        self._put_back(*self._good)
        rate = learning_rate(self.config, max(failed - 1, 0), self.steps)
        raise TrainingError(
            f"training diverged before step {failed} of {self.steps}: loss {loss:.4g}, norm of the "
            f"weights {size:.4g}, learning rate {rate:.4g}; the weights of step {self._step} are "
            f"kept; try a learning_rate below {self.config.learning_rate:g} or clip_norm = 1"
        )

    def _describe(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """What makes a run this run: a checkpoint of another is refused."""
        names = self.model.architecture
        statistics = [self.model.input.mean.tolist(), self.model.input.std.tolist()]
        return {
            "model": f"{names.name}, {names.channels} channels, {names.classes} classes, "
            f"{names.size[0]}×{names.size[1]}, input {names.input}, adapter {names.adapter}",
            "seed": self.seed,
            "views": self.views,
            "images": len(images),
            "labels": hashlib.sha256(labels.cpu().contiguous().numpy().tobytes()).hexdigest()[:16],
            "pixels": f"mean {statistics[0]}, deviation {statistics[1]}",
            **{f"training.{key}": value for key, value in self.config.as_dict().items()},
        }

    def _capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= self._stepper.tensors()
        tensors |= {f"rng.{name}": t for name, t in self._dropout.state().items()}
        tensors |= {"meter.loss": self._loss, "meter.correct": self._correct}
        document = {
            "version": checkpoint.VERSION,
            "step": self._step,
            "seen": self._seen,
            "run": self._identity,
        }
        return {name: t.detach().clone() for name, t in tensors.items()}, document

    def _put_back(self, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
        def named(prefix: str) -> dict[str, Tensor]:
            start = len(prefix)
            return {name[start:]: t for name, t in tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(named("model."))
        self._stepper.restore(tensors)
        self._dropout.restore(named("rng."))
        self._loss.copy_(tensors["meter.loss"])
        self._correct.copy_(tensors["meter.correct"])
        self._step, self._seen = int(document["step"]), int(document["seen"])

    def _restore(self, state: bytes) -> None:
        tensors, document = checkpoint.unpack(state)
        found = document.get("run", {})
        if document.get("version") != checkpoint.VERSION:
            raise TrainingError(
                f"checkpoint has version {document.get('version')!r}; expected {checkpoint.VERSION}"
            )
        differences = [
            f"{key} was {found.get(key)!r} and is {value!r}"
            for key, value in self._identity.items()
            if found.get(key) != value
        ]
        if differences:
            raise TrainingError(
                f"checkpoint belongs to another run: {'; '.join(differences)}; "
                "restore those, or start without the checkpoint"
            )
        try:
            self._put_back(tensors, document)
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"checkpoint lacks what its run needs ({str(error).splitlines()[0]}); "
                "take an older one, or start again without it"
            ) from error


def _normalise(model: Network, images: Tensor, normalisation: str) -> None:
    if normalisation == "pool":
        model.input.measure(images)
    elif normalisation == "imagenet":
        model.input.set(*IMAGENET)
    else:
        model.input.set([0.0] * images.shape[1], [1.0] * images.shape[1])
