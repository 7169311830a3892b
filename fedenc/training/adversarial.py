"""What steppers have in common that train several networks with Adam, one against another."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fedenc import seeding
from fedenc.training.plan import Plan
from fedenc.training.stepper import Step


class Unpaired:
    """Images that go with no training image in particular: as many are drawn for every epoch as it
    visits, and cut into the same batches.

    Args:
        images: uint8 (M, C, H, W), anywhere.
        seed: of the drawing.
        purpose: what they are drawn for.
    """

    def __init__(self, images: Tensor, seed: int, purpose: str) -> None:
        self.images = images
        self._seed, self._purpose = seed, purpose
        self._plan: tuple[int, Plan] | None = None  # of an epoch

    def enter(self, epoch: int, plan: Plan) -> None:
        """Draw for an epoch with this plan, unless that was done."""
        if self._plan is None or self._plan[0] != epoch:
            generator = seeding.generator(self._seed, self._purpose, epoch)
            rows = torch.randint(len(self.images), (len(plan.rows),), generator=generator)
            self._plan = (epoch, Plan(rows.to(self.images.device), None, plan.steps))

    def draw(self, at: Step, device: torch.device) -> Tensor:
        """The images of a step, on the device: uint8 B×C×H×W."""
        assert self._plan is not None, "an epoch is entered before its steps"
        plan = self._plan[1]
        rows, _, _ = plan.batch(at.number % plan.steps)
        return self.images.index_select(0, rows).to(device)


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
