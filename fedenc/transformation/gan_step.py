"""One step of training a GAN-based transformation: losses, optimisers, and what they keep.

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

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training import rng
from fedenc.training.config import PRECISIONS, TrainingConfig
from fedenc.training.precision import autocast, resolve
from fedenc.transformation.gan import Discriminator, Generator, build_generator


@dataclass(frozen=True)
class GanConfig:
    """Adam on generators and discriminator. TrainingError lists everything that is out of range.

    The rates are those of CycleGAN: constant for the first half of the run, then falling linearly
    to 0.
    """

    epochs: int = 200  # passes over the images
    batch_size: int = 128  # images a step
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)  # Adam's decays of first and second moments
    cycle_weight: float = 10.0  # of the mean |F(G(x)) − x|, on a scale of [−1, 1]
    class_weight: float = 1.0  # of the cross-entropy
    augmentation: str = "none"  # of plain images: a name in fedenc.data.augment
    fill: int = 0  # 0..255: value of pixels that augmentation uncovers
    validation: float = 0.0  # fraction held out and reported on; the last weights are kept
    precision: str = "auto"  # fp32, bf16 (autocast), or bf16 where the hardware computes in it

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r}; expected {expected}"
            for name, good, expected in (
                ("learning_rate", 0 < self.learning_rate < math.inf, "a positive number"),
                ("betas", all(0 <= b < 1 for b in self.betas), "two of at least 0, below 1"),
                ("cycle_weight", 0 <= self.cycle_weight < math.inf, "0 or more"),
                ("class_weight", 0 <= self.class_weight < math.inf, "0 or more"),
                ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            )
            if not good
        ]
        if problems:
            raise TrainingError(f"GAN configuration: {'; '.join(problems)}")
        TrainingConfig(**{name: getattr(self, name) for name in _SHARED})  # checks the rest

    @classmethod
    def of(cls, training: TrainingConfig, **changes: Any) -> "GanConfig":
        """With the length, batches, augmentation and precision of ``training``.

        Its learning rate and schedule are for stochastic gradient descent, and are not taken.
        """
        return cls(**({name: getattr(training, name) for name in _SHARED} | changes))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self) | {"betas": list(self.betas)}


_SHARED = (
    "epochs",
    "batch_size",
    "augmentation",
    "fill",
    "validation",
    "precision",
)


class Measured(NamedTuple):
    """float64 5: loss of the generators, its parts, and the discriminator's, each summed over the
    samples; int64: samples that the classifier still gets right. Both on the device."""

    losses: Tensor
    correct: Tensor


LOSSES = ("loss", "adversarial", "cycle", "classification", "discriminator")


class GanStepper:
    """Holds the networks and their optimisers. ``step`` trains both sides on one batch."""

    def __init__(
        self,
        classifier: Network,
        widths: Sequence[int],
        config: GanConfig,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.precision = resolve(config.precision, device)
        with rng.seeded(seed, "gan"):
            self.generator = build_generator(widths)
            self.inverse = build_generator(widths)
            self.discriminator = Discriminator(self.generator.widths)
        for network in (classifier, *self.networks().values()):
            network.to(device).eval()
        self.classifier = classifier
        self._makers = [*self.generator.parameters(), *self.inverse.parameters()]
        self._judges = list(self.discriminator.parameters())
        self._optimisers = [
            torch.optim.Adam(
                parameters,
                lr=config.learning_rate,
                betas=config.betas,
                fused=device.type in ("cpu", "cuda"),
            )
            for parameters in (self._makers, self._judges)
        ]

    def networks(self) -> dict[str, nn.Module]:
        """All that is trained, by the names under which checkpoints hold it."""
        return {
            "generator": self.generator,
            "inverse": self.inverse,
            "discriminator": self.discriminator,
        }

    def step(self, images: Tensor, labels: Tensor, targets: Tensor, *, rate: float) -> Measured:
        """Train on uint8 B×3×H×W images with int64 B labels and B unpaired targets."""
        config = self.config
        # Channels stay first: normalisation an image at a time would put them there anyway.
        plain, wanted = images.float() / 255, targets.float() / 255
        with autocast(self.precision, self.device):
            protected = self.generator(plain)
            judged = self.discriminator(protected).float()
            returned = self.inverse(protected)
            logits = self.classifier(255 * protected).float()
        adversarial = (judged - 1).square().mean()
        cycle = 2 * (returned - plain).abs().mean()  # 2: from [0, 1] to [−1, 1]
        classification = F.cross_entropy(logits, labels)
        loss = adversarial + config.cycle_weight * cycle + config.class_weight * classification
        # Gradients of these parameters alone: neither the classifier nor D is to learn from it.
        self._update(0, loss, self._makers, rate)
        with autocast(self.precision, self.device):
            real = self.discriminator(wanted).float()
            made = self.discriminator(protected.detach()).float()
        judgement = ((real - 1).square().mean() + made.square().mean()) / 2
        self._update(1, judgement, self._judges, rate)
        with torch.no_grad():
            parts = torch.stack((loss, adversarial, cycle, classification, judgement))
            correct = (logits.argmax(dim=1) == labels).sum()
        return Measured(parts.detach().double() * len(labels), correct)

    def _update(
        self, which: int, loss: Tensor, parameters: list[nn.Parameter], rate: float
    ) -> None:
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser = self._optimisers[which]
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Weights and Adam's moments, for a checkpoint."""
        weights = {
            f"{name}.{key}": tensor
            for name, network in self.networks().items()
            for key, tensor in network.state_dict().items()
        }
        moments = {
            f"adam.{which}.{number:04}.{key}": value
            for which, optimiser in enumerate(self._optimisers)
            for number, parameter in enumerate(optimiser.param_groups[0]["params"])
            for key, value in optimiser.state[parameter].items()
        }
        return weights | moments

    def restore(self, tensors: dict[str, Tensor], *, steps: int) -> None:
        """The inverse of ``tensors`` after ``steps`` steps; KeyError if something is not there."""
        for name, network in self.networks().items():
            network.load_state_dict({k: tensors[f"{name}.{k}"] for k in network.state_dict()})
        for which, optimiser in enumerate(self._optimisers):
            optimiser.state.clear()
            if not steps:
                continue
            for number, parameter in enumerate(optimiser.param_groups[0]["params"]):
                prefix = f"adam.{which}.{number:04}."
                state = optimiser.state[parameter]
                state["step"] = tensors[prefix + "step"].to(self.device).clone()
                for key in ("exp_avg", "exp_avg_sq"):
                    state[key] = torch.empty_like(parameter, requires_grad=False)
                    state[key].copy_(tensors[prefix + key])


class Judged(nn.Module):
    """What a classifier makes of protected images: uint8 N×3×H×W plain images to logits."""

    def __init__(self, generator: Generator, classifier: Network) -> None:
        super().__init__()
        self.generator = generator
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(255 * self.generator(images.float() / 255))
        return logits
