"""Training a GAN-based transformation: plain images and a target domain in, a generator out.

::

    run = train_gan(TrainingSet(images, labels), make_targets(images, seed), classifier=classifier,
                    widths=(64, 128, 256), config=GanConfig.of(training), seed=1, device=device)
    for progress in run:                   # as of ``fedenc.training.loop.fit``
        write_atomically(path, run.checkpoint())
    run.model                              # float N×3×H×W in [0, 1] to the same

The loss is ours (the paper names a classification and a reconstruction loss, no weights)::

    generators:     (D(G(x)) − 1)²  +  10·|F(G(x)) − x|  +  CE(C(G(x)), y)
    discriminator:  ½·(D(t) − 1)²  +  ½·D(G(x))²

with plain images x, labels y and unpaired images t of the target domain; G maps plain to protected,
F back, D judges the protected domain, and C is a frozen classifier that differs from the one which
the provider will use. Least squares for D (Mao et al., ICCV 2017), the weight 10 and the absolute
difference, taken on a scale of [−1, 1], are CycleGAN's (Zhu et al., ICCV 2017, §3 and appendix
7.1). Left out of CycleGAN are the cycle from the target domain and a second discriminator, since F
need not make plausible images, and the history of generated images, which serves batches of one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc import seeding
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training import identity, rng
from fedenc.training.adversarial import AdversarialStepper, Unpaired, update
from fedenc.training.config import Passes, TrainingConfig
from fedenc.training.loop import EACH_EPOCH, Reports, Run
from fedenc.training.model_files import weights_sha256
from fedenc.training.plan import Plan
from fedenc.training.precision import autocast, resolve
from fedenc.training.predict import check_images
from fedenc.training.ranges import Rule
from fedenc.training.stepper import Measured, Step
from fedenc.training.training_set import Batch, TrainingSet, place
from fedenc.training.validation import mean_loss
from fedenc.transformation.gan import Discriminator, Generator, build_generator, check_size


@dataclass(frozen=True)
class GanConfig(Passes):
    """Adam on generators and discriminator. Images held out for validation are only reported on,
    and the last weights are kept: a GAN's loss does not tell which are best.

    The rates are those of CycleGAN: constant for the first half of the run, then falling linearly
    to 0.
    """

    title: ClassVar[str] = "GAN configuration"

    epochs: int = 200  # passes over the images
    batch_size: int = 128  # images a step
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)  # Adam's decays of first and second moments
    cycle_weight: float = 10.0  # of the mean |F(G(x)) − x|, on a scale of [−1, 1]
    class_weight: float = 1.0  # of the cross-entropy

    def rules(self) -> Iterable[Rule]:
        yield from super().rules()
        yield "learning_rate", 0 < self.learning_rate < math.inf, "a positive number"
        yield "betas", all(0 <= b < 1 for b in self.betas), "two of at least 0, below 1"
        yield "cycle_weight", 0 <= self.cycle_weight < math.inf, "0 or more"
        yield "class_weight", 0 <= self.class_weight < math.inf, "0 or more"

    @classmethod
    def of(cls, training: TrainingConfig, **changes: Any) -> "GanConfig":
        """With the length, batches, augmentation and precision of ``training``.

        Its learning rate and schedule are for stochastic gradient descent, and are not taken.
        """
        shared = {field.name: getattr(training, field.name) for field in fields(Passes)}
        return cls(**(shared | changes))


def make_targets(images: Tensor, seed: int) -> Tensor:
    """A target domain: all images under one negative-positive transformation.

    uint8 N×C×H×W to the same. The mask, one random bit a pixel and channel, follows from ``seed``
    and is public: these images only show the discriminator what protected ones may look like.
    (Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019, equation 1, under one key.)
    """
    mask = torch.randint(2, images.shape[1:], generator=seeding.generator(seed, "gan target mask"))
    return torch.where(mask.bool().to(images.device), 255 - images, images)


def train_gan(
    training_set: TrainingSet,
    targets: Tensor,
    *,
    classifier: Network,
    widths: Sequence[int],
    config: GanConfig,
    seed: int,
    device: torch.device,
    state: bytes | None = None,
    reports: Reports = EACH_EPOCH,
) -> Run[Generator]:
    """Train a generator on plain images, uint8 N×3×H×W. Iterate over the result to train.

    Args:
        targets: uint8 M×3×H×W, at least one, unpaired: what protected images should look like.
        classifier: takes the images; put into evaluation mode, not changed.
        widths: of the generators, finest first; no more than the first three are used.
        state: an earlier ``checkpoint()`` of the same run.
        reports: when to report within an epoch.

    Raises:
        TrainingError: arguments that do not fit, a checkpoint of another run, diverging loss.
    """
    stepper = GanStepper(classifier, targets, widths, config, seed=seed, device=device)
    return Run(stepper, training_set, seed=seed, state=state, reports=reports)


class GanStepper(AdversarialStepper):
    """A :class:`fedenc.training.stepper.Stepper` of both generators and the discriminator.

    ``model`` is the transformation, ``inverse`` the way back from protected to plain images, which
    is trained along with it; both stay in evaluation mode.
    """

    losses = ("loss", "adversarial", "cycle", "classification", "discriminator")
    remedy = "try another seed, or fewer epochs"

    def __init__(
        self,
        classifier: Network,
        targets: Tensor,
        widths: Sequence[int],
        config: GanConfig,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.precision = resolve(config.precision, device)
        self.classes = classifier.architecture.classes
        with rng.seeded(seed, "gan"):
            self.model = build_generator(widths)
            self.inverse = build_generator(widths)
            self.discriminator = Discriminator(self.model.widths)
        for network in (classifier, *self.networks().values()):
            network.to(device).eval()
        self._classifier = classifier
        self._targets = Unpaired(place(targets, device), seed, "gan target")
        fused = device.type in ("cpu", "cuda")
        self.optimisers = [  # of generators and discriminator
            torch.optim.Adam(p, lr=config.learning_rate, betas=config.betas, fused=fused)
            for p in (
                [*self.model.parameters(), *self.inverse.parameters()],
                self.discriminator.parameters(),
            )
        ]

    def networks(self) -> dict[str, nn.Module]:
        return {
            "generator": self.model,
            "inverse": self.inverse,
            "discriminator": self.discriminator,
        }

    def prepare(self, images: Tensor) -> None:
        check_images(self._classifier, images)
        channels, height, width = images.shape[1:]
        if channels != 3:
            raise TrainingError(
                f"images have {channels} channels; a GAN-based transformation takes 3"
            )
        check_size(self.model.widths, height, width)
        targets = self._targets.images
        alike = targets.dtype == torch.uint8 and targets.shape[1:] == images.shape[1:]
        if not (alike and len(targets)):
            dtype = str(targets.dtype).removeprefix("torch.")
            raise TrainingError(
                f"targets are {dtype} {'×'.join(map(str, targets.shape))}; expected uint8 "
                f"M×{channels}×{height}×{width}, at least one"
            )

    def identity(self) -> dict[str, Any]:
        settings = self.config.as_dict().items()
        return {
            "widths": list(self.model.widths),
            "classifier": weights_sha256(self._classifier),
            "targets": identity.digest(self._targets.images),
            **{f"gan.{name}": value for name, value in settings},
        }

    def enter(self, epoch: int, plan: Plan) -> None:
        """Draw targets for the whole epoch, as many as images, and cut them alike."""
        self._targets.enter(epoch, plan)

    def learning_rate(self, step: int, steps: int) -> float:
        return self.config.learning_rate * min(1.0, 2 * (1 - step / steps))

    def step(self, images: Tensor, labels: Tensor, at: Step) -> Measured:
        """Train generators, then discriminator, on as many targets as images."""
        config, rate = self.config, self.learning_rate(at.number, at.steps)
        # Channels stay first: normalisation an image at a time would put them there anyway.
        plain, targets = images.float() / 255, self._targets.draw(at, self.device).float() / 255
        with autocast(self.precision, self.device):
            protected = self.model(plain)
            judged = self.discriminator(protected).float()
            returned = self.inverse(protected)
            logits = self._classifier(255 * protected).float()
        adversarial = (judged - 1).square().mean()
        cycle = 2 * (returned - plain).abs().mean()  # 2: from [0, 1] to [−1, 1]
        classification = F.cross_entropy(logits, labels)
        loss = adversarial + config.cycle_weight * cycle + config.class_weight * classification
        # Gradients of these parameters alone: neither the classifier nor D is to learn from it.
        update(self.optimisers[0], loss, rate)
        with autocast(self.precision, self.device):
            real = self.discriminator(targets).float()
            made = self.discriminator(protected.detach()).float()
        discriminator = ((real - 1).square().mean() + made.square().mean()) / 2
        update(self.optimisers[1], discriminator, rate)
        with torch.no_grad():
            parts = torch.stack((loss, adversarial, cycle, classification, discriminator))
            correct = (logits.argmax(dim=1) == labels).sum()
        return Measured(parts.detach().double() * len(labels), correct)

    def validate(self, batches: Iterable[Batch]) -> float:
        """The frozen classifier's cross-entropy on protected images."""

        def logits(images: Tensor) -> Tensor:
            found: Tensor = self._classifier(255 * self.model(images.float() / 255))
            return found

        return mean_loss(logits, batches, precision=self.precision, device=self.device)

    def conclude(self) -> None:
        """The last weights are the result."""
