"""Training a GAN-based transformation: plain images and a target domain in, a generator out.

::

    run = train_gan(images, labels, make_targets(images, seed), classifier=classifier,
                    widths=(64, 128, 256), config=GanConfig.of(training), seed=1, device=device)
    for progress in run:                   # after every epoch, more often if asked
        write_atomically(path, run.checkpoint())
    run.generator                          # float N×3×H×W in [0, 1] to the same

As with ``fedenc.training.fit``, a run continued from a checkpoint ends, on a CPU with the same
number of threads, with the same weights, bit for bit. What is trained and how: ``gan_step``.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedenc import seeding
from fedenc.data import augment
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training import checkpoint, identity, model_files, validation
from fedenc.training.loop import Progress, bearable, weights_norm
from fedenc.training.plan import Plan, make_plan, steps_per_epoch
from fedenc.training.pool import Pool, check_labels
from fedenc.training.predict import check_images
from fedenc.transformation.gan import Generator, check_size
from fedenc.transformation.gan_step import LOSSES, GanConfig, GanStepper, Judged

VERSION = 1  # of checkpoints


@dataclass(frozen=True)
class GanProgress(Progress):
    """Where a run is. ``loss`` is the generators'; ``accuracy`` that of the frozen classifier on
    protected training images; ``validation_loss`` its cross-entropy on protected held-out ones.
    The rest are the parts of the loss, unweighted, and the discriminator's own."""

    adversarial: float = 0.0
    cycle: float = 0.0
    classification: float = 0.0
    discriminator: float = 0.0


def make_targets(images: Tensor, seed: int) -> Tensor:
    """A target domain: all images under one negative-positive transformation.

    uint8 N×C×H×W to the same. The mask, one random bit a pixel and channel, follows from ``seed``
    and is public: these images only show the discriminator what protected ones may look like.
    (Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019, equation 1, under one key.)
    """
    mask = torch.randint(2, images.shape[1:], generator=seeding.generator(seed, "gan target mask"))
    return torch.where(mask.bool().to(images.device), 255 - images, images)


def train_gan(
    images: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    classifier: Network,
    widths: Sequence[int],
    config: GanConfig,
    seed: int,
    device: torch.device,
    state: bytes | None = None,
    every_steps: int | None = None,
    every_seconds: float | None = None,
) -> "GanRun":
    """Train a generator on uint8 N×3×H×W plain images with int64 N labels.

    Iterate over the result to train; its ``generator`` is the transformation. Where
    ``config.validation`` is set, it holds out the images that ``fit`` would, given that fraction
    and seed, and only reports on them: a GAN's loss does not tell which weights are best.

    Args:
        targets: uint8 M×3×H×W, at least one, unpaired: what protected images should look like.
        classifier: takes the images; put into evaluation mode, not changed.
        widths: of the generators, finest first; no more than the first three are used.
        state: an earlier ``checkpoint()`` of the same run.
        every_steps, every_seconds: when to report within an epoch.

    Raises:
        TrainingError: arguments that do not fit, a checkpoint of another run, diverging loss.
    """
    _check(images, labels, targets, classifier)
    check_size(widths, *images.shape[2:])
    stepper = GanStepper(classifier, widths, config, seed=seed, device=device)
    return GanRun(stepper, images, labels, targets, seed, state, every_steps, every_seconds)


class GanRun(Iterator[GanProgress]):
    """A run under way: an iterator over its reports."""

    def __init__(
        self,
        stepper: GanStepper,
        images: Tensor,
        labels: Tensor,
        targets: Tensor,
        seed: int,
        state: bytes | None,
        every_steps: int | None,
        every_seconds: float | None,
    ) -> None:
        self.config, self.seed, self.device = stepper.config, seed, stepper.device
        self._stepper = stepper
        self._every_steps, self._every_seconds = every_steps, every_seconds
        self._augmentation = augment.named(self.config.augmentation)
        self._images, self._held_out = validation.split(labels.cpu(), self.config.validation, seed)
        self._epoch_steps = steps_per_epoch(
            len(self._images), self._augmentation, self.config.batch_size
        )
        self.steps = self.config.epochs * self._epoch_steps
        self._pool = Pool(images, labels, self.device)
        self._targets = Pool(targets, torch.arange(len(targets)), self.device)
        self._identity = _describe(stepper, images, labels, targets, seed)
        self._step, self._seen, self._seconds = 0, 0, 0.0
        self._losses = torch.zeros(len(LOSSES), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._validation_loss: float | None = None
        if state is not None:
            checkpoint.resume(state, self._identity, self._put_back, format="gan", version=VERSION)
        self._good = self._capture()
        self._events = self._run()

    def __next__(self) -> GanProgress:
        return next(self._events)

    @property
    def generator(self) -> Generator:
        """The transformation, in evaluation mode, on the run's device."""
        return self._stepper.generator

    @property
    def inverse(self) -> Generator:
        """The way back from protected to plain images, which is trained along with it."""
        return self._stepper.inverse

    @property
    def precision(self) -> str:
        """What "auto" came to: "fp32" or "bf16"."""
        return self._stepper.precision

    def checkpoint(self) -> bytes:
        """The run as of the last report (or the start), even after an error. Equal states give
        equal bytes."""
        return checkpoint.pack(*self._good)

    def _run(self) -> Iterator[GanProgress]:
        if self._step == self.steps:  # a finished run, resumed
            yield self._report(0, 0, 0.0)
        while self._step < self.steps:
            start, first = time.perf_counter(), self._step
            visited = self._advance(start)
            self._check_finite()
            if self._held_out is not None and self._step % self._epoch_steps == 0:
                self._validate(self._held_out)
            seconds = time.perf_counter() - start
            self._seconds += seconds
            self._good = self._capture()
            yield self._report(self._step - first, visited, seconds)

    def _advance(self, start: float) -> int:
        """Train until a report is due; returns the number of images visited."""
        epoch, first = divmod(self._step, self._epoch_steps)
        if first == 0:
            self._seen = 0
            self._losses.zero_()
            self._correct.zero_()
        plan, unpaired = self._plans(epoch)
        last = self._epoch_steps
        if self._every_steps:
            last = min(last, first + self._every_steps - self._step % self._every_steps)
        numbers = range(first, last)
        parts = [plan.batch(n) for n in numbers]
        batches = self._pool.batches(rows for rows, _, _ in parts)
        targets = self._targets.batches(unpaired.batch(n)[0] for n in numbers)
        visited = 0
        for (_, draws, size), (images, labels), (wanted, _) in zip(
            parts, batches, targets, strict=True
        ):
            if draws is not None:
                images = augment.apply(images, draws, fill=self.config.fill)
            measured = self._stepper.step(images, labels, wanted, rate=self._rate(self._step))
            self._losses += measured.losses
            self._correct += measured.correct
            self._step += 1
            self._seen += size
            visited += size
            if self._every_seconds and time.perf_counter() - start >= self._every_seconds:
                break
        return visited

    def _plans(self, epoch: int) -> tuple[Plan, Plan]:
        """Rows of images and, cut alike, independently drawn rows of targets."""
        plan = make_plan(
            self._images,
            views=1,
            augmentation=self._augmentation,
            batch_size=self.config.batch_size,
            seed=self.seed,
            epoch=epoch,
            home=self._pool.home,
            device=self.device,
        )
        generator = seeding.generator(self.seed, "gan target", epoch)
        rows = torch.randint(len(self._targets.images), (len(plan.rows),), generator=generator)
        return plan, Plan(rows.to(self._targets.home), None, plan.steps)

    def _rate(self, step: int) -> float:
        return self.config.learning_rate * min(1.0, 2 * (1 - step / self.steps))

    def _means(self) -> dict[str, float]:
        """Losses of the epoch so far, by name. Waits for the device."""
        means = (self._losses / max(self._seen, 1)).tolist()
        return dict(zip(LOSSES, means, strict=True))

    def _report(self, steps: int, visited: int, seconds: float) -> GanProgress:
        return GanProgress(
            epoch=-(-self._step // self._epoch_steps),
            epochs=self.config.epochs,
            step=self._step,
            steps=self.steps,
            accuracy=self._correct.item() / max(self._seen, 1),
            images_per_second=visited / seconds if seconds else 0.0,
            seconds=self._seconds,
            seconds_left=(self.steps - self._step) * seconds / max(steps, 1),
            learning_rate=self._rate(max(self._step - 1, 0)),
            validation_loss=self._validation_loss,
            **self._means(),
        )

    def _check_finite(self) -> None:
        """Stop on a loss or a weight that is out of hand, with the last good weights in place."""
        means = self._means()
        networks = self._stepper.networks().values()
        size = weights_norm(p for network in networks for p in network.parameters())
        classes = self._stepper.classifier.architecture.classes
        losses = means["loss"], means["discriminator"]
        if all(bearable(loss, classes) for loss in losses) and math.isfinite(size):
            return
        failed = self._step
        self._put_back(*self._good)
        raise TrainingError(
            f"training of the GAN diverged before step {failed} of {self.steps}: loss of the "
            f"generators {means['loss']:.4g}, of the discriminator {means['discriminator']:.4g}, "
            f"norm of the weights {size:.4g}; the weights of step {self._step} are kept; try "
            "another seed, or fewer epochs"
        )

    def _validate(self, held_out: Tensor) -> None:
        judged = Judged(self._stepper.generator, self._stepper.classifier).eval()
        rows = held_out.to(self._pool.home)
        self._validation_loss = validation.mean_loss(
            judged, self._pool, rows, self.config.precision
        )

    def _capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self._stepper.tensors()
        tensors |= {"meter.losses": self._losses, "meter.correct": self._correct}
        document = {
            "gan": VERSION,
            "step": self._step,
            "seen": self._seen,
            "validation_loss": self._validation_loss,
            "run": self._identity,
        }
        return {name: t.detach().clone() for name, t in tensors.items()}, document

    def _put_back(self, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
        self._stepper.restore(tensors, steps=document["step"])
        self._losses.copy_(tensors["meter.losses"])
        self._correct.copy_(tensors["meter.correct"])
        self._validation_loss = document["validation_loss"]
        self._step, self._seen = int(document["step"]), int(document["seen"])


def _check(images: Tensor, labels: Tensor, targets: Tensor, classifier: Network) -> None:
    check_images(classifier, images)
    check_labels(labels, len(images), classifier.architecture.classes, 1)
    if classifier.architecture.channels != 3:
        raise TrainingError(
            f"images have {classifier.architecture.channels} channels; a GAN-based transformation "
            "takes 3"
        )
    expected = tuple(images.shape[1:])
    if targets.dtype != torch.uint8 or tuple(targets.shape[1:]) != expected or not len(targets):
        found = f"{str(targets.dtype).removeprefix('torch.')} {'×'.join(map(str, targets.shape))}"
        wanted = "×".join(map(str, expected))
        raise TrainingError(f"targets are {found}; expected uint8 M×{wanted}, at least one")


def _describe(
    stepper: GanStepper, images: Tensor, labels: Tensor, targets: Tensor, seed: int
) -> dict[str, Any]:
    """What makes a run this run, as JSON values."""
    return {
        "widths": list(stepper.generator.widths),
        "classifier": model_files.weights_sha256(stepper.classifier),
        "seed": seed,
        "images": identity.digest(images),
        "labels": identity.digest(labels),
        "targets": identity.digest(targets),
        **{f"gan.{key}": value for key, value in stepper.config.as_dict().items()},
    }
