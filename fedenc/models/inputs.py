"""The input stage: uint8 images to normalised floats, and features that a cipher cannot change.

``invariant`` is the canonical form of the cipher that protects the images (``fedenc.orbits``): of
all that its keys make of an image, the one that stands for them. ``invariant-np`` is ``min(p, 255 −
p)``, which does not change under negative-positive transformation (NP) alone.

Features are computed in uint8, before any float, so that a plain image and every ciphertext of it
enter the network as the same bits. They are complete: with independent uniform keys nothing else
about the image is left to learn. They are also exactly what any observer sees.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from fedenc import orbits
from fedenc.errors import TrainingError
from fedenc.orbits.values import fold as fold
from fedenc.orbits.values import fold_sorted as fold_sorted
from fedenc.plugins import Parameter

InputKind = Literal["raw", "invariant", "invariant-np"]
KINDS: tuple[str, ...] = get_args(InputKind)


class InputStage(nn.Module):
    """uint8 N×C×H×W to float32 of the same shape, with mean 0 and deviation 1 per channel.

    ``mean`` and ``std`` (float32, C values in [0, 1]) are buffers and travel with the weights. They
    are measured on the images that the model trains on, after folding, by ``measure``; until then
    they centre the stage's nominal range.

    Args:
        channels: C.
        kind: ``raw``, ``invariant`` or ``invariant-np``.
        cipher: for ``invariant``, whose canonical form. For ``pixel`` it is always the sorted fold,
            which no colour shuffling changes either: without that, ``invariant-np`` is the one that
            lies in the orbit. For ``none`` and None it is the same, not the image itself, so that a
            training on plain images can be compared with one on pixel-based ciphertexts.
        cipher_params: its public parameters in full.

    Raises:
        TrainingError: another kind, or a cipher without a canonical form.
        CipherError: a cipher that does not exist.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int,
        kind: str = "raw",
        cipher: str | None = None,
        cipher_params: Mapping[str, Parameter] | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise TrainingError(f"input is {kind!r}; expected one of {', '.join(KINDS)}")
        self.kind = cast(InputKind, kind)
        self._features = _features(self.kind, cipher, cipher_params or {})
        self.channels = channels
        centre, spread = (0.5, 0.25) if kind == "raw" else (0.25, 0.125)
        self.register_buffer("mean", torch.full((channels,), centre))
        self.register_buffer("std", torch.full((channels,), spread))

    def features(self, images: Tensor) -> Tensor:
        """What the network gets to see, still as uint8."""
        return images if self._features is None else self._features(images)

    @torch.no_grad()
    def measure(self, images: Tensor, *, chunk: int = 256) -> None:
        """Set the statistics to those of ``images`` (uint8 N×C×H×W).

        Counted as a histogram of the 256 values, so the result is exact: it depends neither on the
        order of the images nor on the number of threads, and needs no float copy of the pool.
        """
        counts = torch.zeros(self.channels, 256, dtype=torch.int64, device=images.device)
        offsets = 256 * torch.arange(self.channels, device=images.device).view(1, -1, 1, 1)
        for part in torch.split(images, chunk):
            values = (self.features(part) + offsets).flatten()
            counts += torch.bincount(values, minlength=counts.numel()).view_as(counts)
        weights = counts.to("cpu", torch.float64)
        weights /= weights.sum(dim=1, keepdim=True)
        levels = torch.arange(256, dtype=torch.float64) / 255
        mean = weights @ levels
        variance = (weights * (levels - mean[:, None]) ** 2).sum(dim=1)
        # A constant channel has deviation 0; one grey level instead keeps the result finite.
        self.set(mean.tolist(), variance.sqrt().clamp_min(1 / 255).tolist())

    def set(self, mean: list[float], std: list[float]) -> None:
        """Set given statistics (such as a paper's), as fractions of 255, one per channel."""
        if len(mean) != self.channels or len(std) != self.channels:
            raise TrainingError(
                f"input statistics have {len(mean)} means and {len(std)} deviations; "
                f"expected {self.channels} of each, one per channel"
            )
        if not all(math.isfinite(s) and s > 0 for s in std):
            raise TrainingError(f"input deviations are {std}; expected positive numbers")
        self.mean.copy_(torch.tensor(mean, dtype=torch.float64))
        self.std.copy_(torch.tensor(std, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        scale = (1 / (255 * self.std)).view(1, -1, 1, 1)
        shift = (-self.mean / self.std).view(1, -1, 1, 1)
        return torch.addcmul(shift, self.features(images).to(scale.dtype), scale)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, kind={self.kind!r}"


def _features(
    kind: InputKind, cipher: str | None, params: Mapping[str, Parameter]
) -> Callable[[Tensor], Tensor] | None:
    if kind == "raw":
        return None
    if kind == "invariant-np":
        return fold
    if cipher in (None, "none", "pixel"):
        return fold_sorted
    form = orbits.canonical(cipher, params)
    if form is None:
        raise TrainingError(
            f"input is 'invariant', but cipher {cipher!r} has no canonical form; use 'raw'"
        )
    return form
