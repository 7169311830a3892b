"""What a transformation network minimises (Ito, Kinoshita & Kiya, IEEE Access 2021, eq. 2)."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc.models.network import Architecture, Network
from fedenc.transformation.features import Features


class Objective(Network):
    """h_θ in front of a frozen classifier, as a network for ``fedenc.training.loop.fit``.

    uint8 N×3×H×W images to the logits ψ(h(x)); with ``penalty``, −α·mean((φ(h(x)) − φ(x))²), the
    loss is the paper's L = CE(ψ(h(x)), y) − α·MSE(φ(h(x)), φ(x)). It can be negative.

    Only h is trained and has a state. ψ and φ are copies that belong to the loss: they stay in
    evaluation mode, take no gradient, and go along to the device. A φ that is the beginning of ψ is
    computed with it.

    Args:
        h: float N×3×H×W in [0, 1] to the same; train it with normalisation "none".
        psi: takes raw images.
        features: φ; None, or ``alpha`` = 0: no second term, which then costs nothing.
        name: tells this run from others, in checkpoints.
    """

    def __init__(
        self, h: nn.Module, psi: Network, features: Features | None, *, alpha: float, name: str
    ) -> None:
        like = psi.architecture
        super().__init__(Architecture(name, 3, like.classes, like.size), h, nn.Identity())
        self.alpha = alpha if features is not None else 0.0
        # In a tuple, so that they are not modules of this one.
        frozen: tuple[Network, Features | None] = (psi, features if self.alpha else None)
        self._frozen = copy.deepcopy(frozen)
        self._frozen[0].eval().requires_grad_(False)
        self._penalty: Tensor | None = None
        self._seen: list[Tensor] = []  # φ(h(x)), where ψ comes by it
        if features is not None and features.shared:
            last = list(self._frozen[0].body.children())[features.shared - 1]
            last.register_forward_hook(self._see)

    @property
    def h(self) -> nn.Module:
        """The network in training."""
        return self.adapter

    def penalty(self) -> Tensor | None:
        return self._penalty

    def forward(self, images: Tensor) -> Tensor:
        psi, features = self._frozen
        x = self.input(images)
        y = self.h(x)
        logits: Tensor = psi(255 * y)
        if features is not None:
            with torch.no_grad():
                plain = features(x)
            protected = self._seen.pop() if features.shared else features(y)
            # In float32: a mean over a million bfloat16 squares would keep two digits.
            self._penalty = -self.alpha * F.mse_loss(protected.float(), plain.float())
        return logits

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen = [output]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Objective":
        for module in self._frozen:
            if module is not None:
                module._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
