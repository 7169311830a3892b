"""SIA-GAN: a generator learns to make natural images of the right class out of ciphertexts."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc import models
from fedenc.attacks import learning
from fedenc.attacks.base import Attack, Cost, Findings, Knowledge, Means, Method, Observation
from fedenc.attacks.learning import Canvas
from fedenc.attacks.networks import DOWN, SiaDiscriminator, SiaGenerator
from fedenc.ciphers import le
from fedenc.errors import AttackError
from fedenc.models.network import Network
from fedenc.training import identity, rng
from fedenc.training.adversarial import AdversarialStepper, Unpaired, update
from fedenc.training.config import Passes
from fedenc.training.loop import Reports, Run
from fedenc.training.plan import Plan
from fedenc.training.precision import autocast, resolve
from fedenc.training.ranges import Rule
from fedenc.training.stepper import Measured, Step
from fedenc.training.training_set import Batch, TrainingSet

_REPORTS = Reports(seconds=2.0)
_CHUNK = 64  # images made at once


@dataclass(frozen=True)
class Preset:
    """Sizes of the networks and length of the training.

    Attributes:
        width: channels of the generator's decoder.
        judge: channels of the discriminator's last convolution.
        classifier: a name that ``fedenc.models.build`` knows.
        visits: images that training visits in all, from which the number of epochs follows.
    """

    width: int
    judge: int
    classifier: str
    visits: int


# "full" has the paper's widths, and its 100 epochs over the 50,000 training images of CIFAR-10
PRESETS = {
    "small": Preset(16, 64, "tiny", 12_800),
    "full": Preset(64, 1024, "resnet18", 5_000_000),
}


@dataclass(frozen=True)
class SiaConfig(Passes):
    """Adam on generator with classifier, and on the discriminator, at constant rates."""

    title: ClassVar[str] = "SIA-GAN configuration"

    epochs: int = 100  # passes over the ciphertexts
    batch_size: int = 64  # images a step
    learning_rate: float = 1e-4  # of generator and classifier
    judge_rate: float = 4e-4  # of the discriminator
    betas: tuple[float, float] = (0.0, 0.9)  # Adam's decays of first and second moments
    class_weight: float = 1.0  # of the cross-entropy

    def rules(self) -> Iterable[Rule]:
        yield from super().rules()
        yield "learning_rate", 0 < self.learning_rate < math.inf, "a positive number"
        yield "judge_rate", 0 < self.judge_rate < math.inf, "a positive number"
        yield "betas", all(0 <= b < 1 for b in self.betas), "two of at least 0, below 1"
        yield "class_weight", 0 <= self.class_weight < math.inf, "0 or more"


@dataclass(frozen=True)
class SiaGan(Attack):
    """Trains a GAN that turns ciphertexts into natural images of their class, without any pair.

    From the paper: the generator (a sub-network for each block, then a decoder), the discriminator,
    the hinge losses (equations 3 and 4), Adam's rates and moments, batches of 64, 100 epochs. From
    the code published with it: the cross-entropy of a classifier that is trained along with the
    generator, which the paper's loss does not have, the order of steps (discriminator first), and
    what :mod:`fedenc.attacks.networks` says of the layers.

    Ours are: one of this library's classifiers, where that code has a ShakeDrop PyramidNet; the
    usual spectral normalisation; natural images that are public and none of the encrypted ones,
    which the paper calls different domains. A block is the cipher's own, or 4×4 pixels; for ciphers
    that work on single pixels, a pixel.

    Args:
        preset: "small" takes minutes on a CPU; "full" has the paper's sizes, for a GPU.
        epochs: passes over the uploads; 0: as many as it takes to visit the preset's number of
            images.
    """

    preset: str = "small"
    epochs: int = 0
    name: ClassVar[str] = "sia-gan"
    source: ClassVar[str] = "Madono, Tanaka, Onishi & Ogawa, IEEE Access 2021"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.LABELS, Knowledge.PUBLIC})
    cost: ClassVar[Cost] = "minutes"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise AttackError(f"preset is {self.preset!r}, expected one of {', '.join(PRESETS)}")
        if self.epochs:
            learning.require_positive(epochs=self.epochs)

    def unsuitable(self, method: Method) -> str | None:
        return learning.without_cipher(method)

    def run(self, observation: Observation, means: Means) -> Findings:
        learning.require_images(self.name, observation)
        method, uploads, public = observation.method, observation.uploads, observation.public
        if method.cipher is None:
            raise AttackError(f"{self.name} {self.unsuitable(method)}")
        if len(uploads) < 2:
            raise AttackError("there is 1 upload; expected at least 2")
        block = block_side(method)
        shape = method.cipher.output_shape(*method.shape)
        canvas = Canvas(shape, method.shape, math.lcm(DOWN, block))
        images = canvas.lay(uploads.images.cpu())
        preset = PRESETS[self.preset]
        config = SiaConfig(epochs=self.epochs or max(1, -(-preset.visits // len(images))))
        stepper = SiaStepper(
            canvas, block, preset, public.images, public.classes, config, means=means
        )
        run = learning.trained(
            lambda state: Run(
                stepper,
                TrainingSet(images, observation.labels.cpu()),
                seed=means.seed,
                state=state,
                reports=_REPORTS,
            ),
            self.name,
            means,
        )
        generator = run.model.eval()
        with torch.no_grad():
            parts = [
                generator(scaled(part.to(means.device))).cpu()
                for part in torch.split(images, _CHUNK)
            ]
        made = learning.as_bytes((canvas.cut(torch.cat(parts)) + 1) / 2)
        facts = {"training images": len(public.images), "epochs": config.epochs}
        return Findings(images=made, facts=facts)


def block_side(method: Method) -> int:
    """Pixels a side of the blocks of which a generator's sub-networks see one each."""
    if method.name in ("pixel", "none", "logistic-rc4"):
        return 1
    size = method.params.get("block_size")
    return size if isinstance(size, int) else le.BLOCK


def scaled(images: Tensor) -> Tensor:
    """uint8 to float in [−1, 1]."""
    return images.float() / 127.5 - 1


class SiaStepper(AdversarialStepper):
    """A :class:`fedenc.training.stepper.Stepper` of generator, classifier and discriminator.

    Args:
        canvas: of protected and natural images.
        block: pixels a side that a sub-network sees.
        preset: sizes of the networks.
        natural: uint8 (M, C, H, W), unpaired.
        classes: labels are below this.
        config: how to train.
        means: seed and device.
    """

    losses = ("loss", "adversarial", "classification", "discriminator")
    remedy = "try another seed, or fewer epochs"

    def __init__(
        self,
        canvas: Canvas,
        block: int,
        preset: Preset,
        natural: Tensor,
        classes: int,
        config: SiaConfig,
        *,
        means: Means,
    ) -> None:
        self.config, self.device, self.classes = config, means.device, max(2, classes)
        self.precision = resolve(config.precision, means.device)
        self._preset, self._block = preset, block
        channels = canvas.plain[0]
        with rng.seeded(means.seed, "initialisation", "sia-gan"):
            self.model = SiaGenerator(canvas.channels, channels, canvas.size, block, preset.width)
            self.discriminator = SiaDiscriminator(channels, canvas.size, preset.judge)
        self.classifier: Network = models.build(
            preset.classifier,
            channels=channels,
            classes=self.classes,
            size=canvas.size,
            seed=means.seed,
        )
        for network in self.networks().values():
            network.to(means.device)
        placed = canvas.fill(natural.cpu()).to(means.device)
        self._natural = Unpaired(placed, means.seed, "sia natural")
        self.optimisers = [
            torch.optim.Adam(parameters, lr=rate, betas=config.betas)
            for parameters, rate in (
                ([*self.model.parameters(), *self.classifier.parameters()], config.learning_rate),
                (self.discriminator.parameters(), config.judge_rate),
            )
        ]

    def networks(self) -> dict[str, nn.Module]:
        return {
            "generator": self.model,
            "classifier": self.classifier,
            "discriminator": self.discriminator,
        }

    def prepare(self, images: Tensor) -> None:
        """Natural images are what the classifier's input is to be like."""
        self.classifier.input.measure(self._natural.images)

    def identity(self) -> dict[str, Any]:
        settings = self.config.as_dict().items()
        return {
            "preset": str(self._preset),
            "block": self._block,
            "natural": identity.digest(self._natural.images),
            **{f"sia.{name}": value for name, value in settings},
        }

    def enter(self, epoch: int, plan: Plan) -> None:
        """Draw natural images for the whole epoch, as many as ciphertexts, and cut them alike."""
        for network in self.networks().values():
            network.train()
        self._natural.enter(epoch, plan)

    def learning_rate(self, step: int, steps: int) -> float:
        return self.config.learning_rate

    def step(self, images: Tensor, labels: Tensor, at: Step) -> Measured:
        """Train the discriminator, then generator and classifier."""
        config = self.config
        with autocast(self.precision, self.device):
            made = self.model(scaled(images))
            real = self.discriminator(scaled(self._natural.draw(at, self.device))).float()
            fake = self.discriminator(made.detach()).float()
        judging = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        update(self.optimisers[1], judging, config.judge_rate)
        with autocast(self.precision, self.device):
            adversarial = -self.discriminator(made).float().mean()
            logits = self.classifier(127.5 * (made + 1)).float()
        classification = F.cross_entropy(logits, labels)
        loss = adversarial + config.class_weight * classification
        update(self.optimisers[0], loss, config.learning_rate)
        with torch.no_grad():
            parts = torch.stack((loss, adversarial, classification, judging))
            correct = (logits.argmax(dim=1) == labels).sum()
        return Measured(parts.detach().double() * len(labels), correct)

    def validate(self, batches: Iterable[Batch]) -> float:
        """Nothing is held out: no loss tells which generator is best."""
        return math.nan

    def conclude(self) -> None:
        """The last weights are the result."""
