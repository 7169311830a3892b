"""One step of stochastic gradient descent, without waiting for the device."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fedenc.models.network import Network
from fedenc.training.config import TrainingConfig
from fedenc.training.precision import autocast, resolve


class Measured(NamedTuple):
    """Sums over a batch, still on the device."""

    loss: Tensor  # float32, summed over the samples
    correct: Tensor  # int64


class Stepper:
    """Holds the optimiser. ``step`` does forward, backward and update on one batch."""

    def __init__(
        self, model: Network, config: TrainingConfig, device: torch.device, world: int = 1
    ) -> None:
        self.model = model
        self.config = config
        self.device = device
        self.world = world
        self.network: nn.Module = model if world == 1 else DistributedDataParallel(model)
        self.precision = resolve(config.precision, device)
        parameters = [p for p in model.parameters() if p.requires_grad]
        decayed = [p for p in parameters if config.decay_all or p.ndim > 1]
        spared = [p for p in parameters if not config.decay_all and p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}]
        if spared:
            groups.append({"params": spared, "weight_decay": 0.0})
        self.optimiser = torch.optim.SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.averaged = [t.detach().clone() for t in self._floats()] if config.ema else []
        self._forward = torch.compile(self._loss) if config.compile else self._loss

    def step(
        self, images: Tensor, labels: Tensor, *, whole: int, rate: float, number: int
    ) -> Measured:
        """Train on uint8 B×C×H×W images with int64 B labels at learning rate ``rate``.

        ``whole`` is the size of the batch over all workers, ``number`` the 0-based number of the
        step in the run.
        """
        if self.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, self.device):
            loss, measured = self._forward(images, labels)
        if self.world > 1:  # gradients are averaged over workers, whose shares may differ by one
            loss = loss * (len(labels) * self.world / whole)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm, foreach=True)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        if self.averaged:
            # The first steps average over what there is, or the start would weigh for ever.
            decay = min(self.config.ema, (1 + number) / (10 + number))
            torch._foreach_lerp_(self.averaged, [t.detach() for t in self._floats()], 1 - decay)
        return measured

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Measured]:
        logits = self.network(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        penalty = self.model.penalty()
        if penalty is not None:
            loss = loss + penalty
        with torch.no_grad():
            correct = (logits.argmax(dim=1) == labels).sum()
        return loss, Measured(loss.detach() * len(labels), correct)

    def _floats(self) -> list[Tensor]:
        """Everything that an average of the model has to average."""
        return [t for t in self.model.state_dict(keep_vars=True).values() if t.is_floating_point()]

    def tensors(self) -> dict[str, Tensor]:
        """Momentum and averaged weights by the names of the parameters, for a checkpoint."""
        momenta = {
            f"momentum.{name}": self.optimiser.state[p]["momentum_buffer"]
            for name, p in self.model.named_parameters()
            if self.optimiser.state[p].get("momentum_buffer") is not None
        }
        return momenta | {f"average.{i:04}": t for i, t in enumerate(self.averaged)}

    def restore(self, tensors: dict[str, Tensor], *, steps: int) -> None:
        """The inverse of ``tensors`` after ``steps`` steps; KeyError if something is not there."""
        self.optimiser.state.clear()
        if steps and self.config.momentum:
            for name, p in self.model.named_parameters():
                buffer = torch.empty_like(p, memory_format=torch.preserve_format)
                buffer.copy_(tensors[f"momentum.{name}"])
                self.optimiser.state[p]["momentum_buffer"] = buffer
        for i, tensor in enumerate(self.averaged):
            tensor.copy_(tensors[f"average.{i:04}"])

    def adopt_average(self) -> None:
        """Make the averaged weights the model's, if there is an average."""
        if not self.averaged:
            return
        with torch.no_grad():
            for target, average in zip(self._floats(), self.averaged, strict=True):
                target.copy_(average)
