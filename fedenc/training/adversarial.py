"""What steppers have in common that train several networks with Adam, one against another."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


class AdversarialStepper(ABC):
    """The part of a :class:`fedenc.training.stepper.Stepper` that is about weights and checkpoints.

    A subclass sets both attributes.

    Attributes:
        device: where it computes.
        optimisers: Adam, each of one group of parameters.
    """

    device: torch.device
    optimisers: Sequence[torch.optim.Adam]

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """All that is trained, by the names under which checkpoints hold it."""

    def weights(self) -> Iterable[Tensor]:
        return (p for network in self.networks().values() for p in network.parameters())

    def tensors(self) -> dict[str, Tensor]:
        weights = {
            f"{name}.{key}": tensor
            for name, network in self.networks().items()
            for key, tensor in network.state_dict().items()
        }
        moments = {
            f"adam.{which}.{number:04}.{key}": value
            for which, optimiser in enumerate(self.optimisers)
            for number, parameter in enumerate(optimiser.param_groups[0]["params"])
            for key, value in optimiser.state[parameter].items()
        }
        return weights | moments

    def restore(self, tensors: Mapping[str, Tensor], *, steps: int) -> None:
        for name, network in self.networks().items():
            network.load_state_dict({k: tensors[f"{name}.{k}"] for k in network.state_dict()})
        for which, optimiser in enumerate(self.optimisers):
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


def update(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """Change an optimiser's own parameters by their gradients, and no others."""
    (group,) = optimiser.param_groups
    for parameter, gradient in zip(
        group["params"], torch.autograd.grad(loss, group["params"]), strict=True
    ):
        parameter.grad = gradient
    group["lr"] = rate
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
