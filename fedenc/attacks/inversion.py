"""Model inversion: what does the model take for typical of a class?

Gradient descent on an image, so that the model finds a class in it, as in MIFace (Fredrikson, Jha &
Ristenpart, CCS 2015, algorithm 1), with two priors that came later: a small total variation, and
statistics of activations that agree with what batch normalisation remembers of the training images
(DeepInversion: Yin et al., CVPR 2020, §3.2).

The picture is in the model's own domain. A model trained under one shared key shows ciphertexts;
one with an invariant input shows canonical forms.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc import seeding
from fedenc.attacks.base import Attack, Cost, Findings, Knowledge, Means, Method, Observation
from fedenc.errors import AttackError
from fedenc.models.network import Network
from fedenc.training.predict import predict

START = 0.1  # deviations of the noise around the mean image that it starts from
REPORTED = 20  # steps
BETAS = 0.9, 0.999  # of Adam


@dataclass(frozen=True)
class Inversion(Attack):
    """Draws what the model takes for typical of an upload's class, by gradient descent (MIFace).

    Args:
        steps: of gradient descent, at least 1.
        rate: of Adam at the start, in parts of the range of a pixel; it falls to 0 as a cosine.
        smoothness: weight of the total variation.
        statistics: weight of the statistics that batch normalisation remembers.
    """

    steps: int = 200
    rate: float = 0.05
    smoothness: float = 30.0
    statistics: float = 0.1
    name: ClassVar[str] = "inversion"
    source: ClassVar[str] = (
        "Fredrikson, Jha & Ristenpart, CCS 2015 (MIFace); Yin et al., CVPR 2020 (DeepInversion)"
    )
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.MODEL, Knowledge.LABELS})
    cost: ClassVar[Cost] = "seconds"

    def __post_init__(self) -> None:
        for name, value, good, expected in (
            ("steps", self.steps, self.steps >= 1, "at least 1"),
            ("rate", self.rate, 0 < self.rate < math.inf, "a positive number"),
            ("smoothness", self.smoothness, 0 <= self.smoothness < math.inf, "0 or more"),
            ("statistics", self.statistics, 0 <= self.statistics < math.inf, "0 or more"),
        ):
            if not good:
                raise AttackError(f"{name} is {value!r}; expected {expected}")

    def unsuitable(self, method: Method) -> str | None:
        if method.cipher is not None and method.cipher.output_shape(*method.shape) != method.shape:
            return "draws what the model takes, which has another shape than plain images"
        return None

    def run(self, observation: Observation, means: Means) -> Findings:
        network = copy.deepcopy(observation.model.network).to(means.device).eval()
        network.requires_grad_(False)
        classes, shown = observation.labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        pictures = self._descend(network, classes.to(means.device), means).cpu()
        scores = predict(network, pictures, device=means.device, precision="fp32")
        confidence = scores.gather(1, classes[:, None]).mean().item()
        return Findings(images=pictures[shown], facts={"confidence": confidence})

    def _descend(self, network: Network, classes: Tensor, means: Means) -> Tensor:
        """A picture of each of K classes: uint8 (K, C, H, W), on the device."""
        a, stage = network.architecture, network.input
        generator = seeding.generator(means.seed, "inversion")
        noise = torch.randn(len(classes), a.channels, *a.size, generator=generator)
        mean, deviation = (t.view(-1, 1, 1) for t in (stage.mean, stage.std))
        values = (mean + START * deviation * noise.to(means.device)).clamp(0, 1)
        pictures = torch.empty_like(values, dtype=torch.uint8)
        first, second = torch.zeros_like(values), torch.zeros_like(values)
        for step in range(1, self.steps + 1):
            values.requires_grad_()
            with _remembered(network) as distances:
                logits = network.body(network.adapter((values - mean) / deviation))
            loss = F.cross_entropy(logits, classes) + self.smoothness * _variation(values)
            if distances:
                loss = loss + self.statistics * torch.stack(distances).sum()
            (gradient,) = torch.autograd.grad(loss, values)
            with torch.no_grad():
                rate = self.rate * (1 + math.cos(math.pi * (step - 1) / self.steps)) / 2
                first.lerp_(gradient, 1 - BETAS[0])
                second.lerp_(gradient.square(), 1 - BETAS[1])
                scale = (second / (1 - BETAS[1] ** step)).sqrt().clamp_min(1e-12)
                values = (values - rate * first / (1 - BETAS[0] ** step) / scale).clamp(0, 1)
                # What the network gets to see of these values. A stage that folds folds them back.
                rounded = (255 * values).round().to(torch.uint8)
                pictures = stage.features(rounded)
                values = torch.where(pictures == rounded, values, pictures / 255)
            if step % REPORTED == 0 or step == self.steps:
                means.report(step / self.steps, f"step {step} of {self.steps}, loss {loss:.3f}")
        return pictures


def _variation(values: Tensor) -> Tensor:
    """Total variation: the mean absolute difference of neighbours, below and beside."""
    down = values[..., 1:, :] - values[..., :-1, :]
    across = values[..., 1:] - values[..., :-1]
    return down.abs().mean() + across.abs().mean()


@contextmanager
def _remembered(network: nn.Module) -> Iterator[list[Tensor]]:
    """Within, a forward pass adds for every batch normalisation how far mean and variance of its
    inputs are from those that it remembers: Yin et al. 2020, §3.2."""
    distances: list[Tensor] = []

    def compare(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], output: Any) -> None:
        if layer.running_mean is None or layer.running_var is None:
            return
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        distances.append((mean - layer.running_mean).norm() + (variance - layer.running_var).norm())

    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    handles = [layer.register_forward_hook(compare) for layer in layers]
    try:
        yield distances
    finally:
        for handle in handles:
            handle.remove()
