"""Stochastic gradient descent on the cross-entropy of a classifier."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.sgd import sgd

from fedenc.models.network import Network
from fedenc.training import schedule
from fedenc.training.config import IMAGENET, TrainingConfig
from fedenc.training.plan import Plan
from fedenc.training.precision import autocast, resolve
from fedenc.training.predict import check_images
from fedenc.training.stepper import Measured, Step
from fedenc.training.training_set import Batch
from fedenc.training.validation import mean_loss


class SgdStepper:
    """A :class:`fedenc.training.stepper.Stepper`: moves ``model`` to the device and trains it
    there, as one of ``world`` workers."""

    losses = ("loss",)

    def __init__(
        self, model: Network, config: TrainingConfig, device: torch.device, world: int = 1
    ) -> None:
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
        self.model = model
        self.config = config
        self.device = device
        self.precision = resolve(config.precision, device)
        self.classes = model.architecture.classes
        self.remedy = f"try a learning_rate below {config.learning_rate:g} or clip_norm = 1"
        self._world = world
        self._network: nn.Module = model  # wrapped, where several workers train it together
        named = dict(model.named_parameters())
        spared = {name: p for name, p in named.items() if not config.decay_all and p.ndim <= 1}
        decayed = {name: p for name, p in named.items() if name not in spared}
        self._groups = ((decayed, config.weight_decay), (spared, 0.0))
        self._momenta: dict[str, Tensor] = {}  # by the parameters' names, from the first step on
        self._averaged: list[Tensor] = []
        self._best: dict[str, Tensor] = {}  # weights of the lowest loss on held-out images
        self._lowest = math.inf  # that loss
        self._forward = torch.compile(self._loss) if config.compile else self._loss

    def prepare(self, images: Tensor) -> None:
        """Set the statistics that the model normalises by, and start from there: all workers
        together, and averaging, if that is asked for."""
        check_images(self.model, images)
        channels, normalisation = images.shape[1], self.config.normalisation
        if normalisation == "pool":
            self.model.input.measure(images)
        elif normalisation == "imagenet":
            self.model.input.set(*IMAGENET)
        else:
            self.model.input.set([0.0] * channels, [1.0] * channels)
        if self._world > 1:
            self._network = DistributedDataParallel(self.model)
        if self.config.ema:
            self._averaged = [t.detach().clone() for t in self._floats()]

    def identity(self) -> dict[str, Any]:
        a = self.model.architecture
        model = (
            f"{a.name}, {a.channels} channels, {a.classes} classes, {a.size[0]}×{a.size[1]}, "
            f"input {a.input}, adapter {a.adapter}"
        )
        if a.cipher not in (None, "none", "pixel"):
            model += f", blocks or canonical form of {a.cipher} {dict(a.cipher_params)}"
        settings = self.config.as_dict().items()
        return {"model": model} | {f"training.{name}": value for name, value in settings}

    def enter(self, epoch: int, plan: Plan) -> None:
        self.model.train()

    def learning_rate(self, step: int, steps: int) -> float:
        return schedule.learning_rate(self.config, step, steps)

    def step(self, images: Tensor, labels: Tensor, at: Step) -> Measured:
        if self.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, self.device):
            loss, measured = self._forward(images, labels)
        if self._world > 1:  # gradients are averaged, but shares may differ by an image
            loss = loss * (len(labels) * self._world / at.images)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm, foreach=True)
        self._update(at)
        return measured

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Measured]:
        logits = self._network(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        penalty = self.model.penalty()
        if penalty is not None:
            loss = loss + penalty
        with torch.no_grad():
            correct = (logits.argmax(dim=1) == labels).sum()
        return loss, Measured(loss.detach()[None] * len(labels), correct)

    @torch.no_grad()
    def _update(self, at: Step) -> None:
        """Change the weights by the gradients that the parameters hold."""
        config, rate = self.config, self.learning_rate(at.number, at.steps)
        for group, decay in self._groups:
            found = [(name, p, p.grad) for name, p in group.items() if p.grad is not None]
            momenta = [self._momenta.get(name) for name, _, _ in found if config.momentum]
            # As a function: torch.optim.SGD imports torch._dynamo, which takes seconds.
            sgd(
                [p for _, p, _ in found],
                [gradient for _, _, gradient in found],
                momenta,
                fused=self.device.type in ("cpu", "cuda"),
                weight_decay=decay,
                momentum=config.momentum,
                lr=rate,
                dampening=0.0,
                nesterov=config.nesterov,
                maximize=False,
            )
            made = zip(found, momenta, strict=False)  # none without momentum
            self._momenta |= {name: m for (name, _, _), m in made if m is not None}
        if self._averaged:
            # The first steps average over what there is, or the start would weigh for ever.
            decay = min(self.config.ema, (1 + at.number) / (10 + at.number))
            torch._foreach_lerp_(self._averaged, [t.detach() for t in self._floats()], 1 - decay)

    def _floats(self) -> list[Tensor]:
        """Everything that an average of the model has to average."""
        return [t for t in self.model.state_dict(keep_vars=True).values() if t.is_floating_point()]

    def weights(self) -> Iterable[Tensor]:
        return self.model.parameters()

    def validate(self, batches: Iterable[Batch]) -> float:
        """Keep the weights if no earlier epoch did better."""
        self.model.eval()
        loss = self._mean_loss(batches)
        if loss < self._lowest:
            self._lowest = loss
            self._best = {n: t.detach().clone() for n, t in self.model.state_dict().items()}
        return loss

    def _mean_loss(self, batches: Iterable[Batch]) -> float:
        return mean_loss(self.model, batches, precision=self.precision, device=self.device)

    def conclude(self) -> None:
        """Take the weights that validation chose, or the averaged ones, if there are such."""
        if self._best:
            self.model.load_state_dict(self._best)
        if self._averaged:
            with torch.no_grad():
                for target, average in zip(self._floats(), self._averaged, strict=True):
                    target.copy_(average)

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self._best.items()}
        tensors |= {f"average.{i:04}": t for i, t in enumerate(self._averaged)}
        tensors["lowest"] = torch.tensor(self._lowest, dtype=torch.float64)
        return tensors | {f"momentum.{name}": t for name, t in self._momenta.items()}

    def restore(self, tensors: Mapping[str, Tensor], *, steps: int) -> None:
        names = self.model.state_dict()
        self.model.load_state_dict({name: tensors[f"model.{name}"] for name in names})
        self._lowest = tensors["lowest"].item()
        found = math.isfinite(self._lowest)
        self._best = {n: tensors[f"best.{n}"].to(self.device) for n in names} if found else {}
        for i, tensor in enumerate(self._averaged):
            tensor.copy_(tensors[f"average.{i:04}"])
        self._momenta.clear()
        if steps and self.config.momentum:
            for name, p in self.model.named_parameters():
                momentum = torch.empty_like(p, requires_grad=False)  # in the parameter's layout
                self._momenta[name] = momentum.copy_(tensors[f"momentum.{name}"])
