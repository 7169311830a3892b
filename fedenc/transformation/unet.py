"""The U-Net h_θ of Ito, Kinoshita & Kiya (IEEE Access 2021, fig. 6), after Ronneberger et al. 2015.

Layers as in the code published with the paper: the figure's widths are not in its text.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc.errors import TrainingError


class Level(nn.Sequential):
    """Two 3×3 convolutions with bias, each before batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(*_convolution(inputs, outputs), *_convolution(outputs, outputs))


class Up(nn.Sequential):
    """Twice the side, by the nearest pixel, then one convolution as in a level."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Upsample(scale_factor=2), *_convolution(inputs, outputs))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


class UNet(nn.Module):
    """float N×3×H×W in [0, 1] to the same, one level for each of ``widths``.

    H and W are multiples of ``stride``, 2^(levels − 1): the sides are halved between levels by 2×2
    max-pooling. On the way up each level sees (skip, up) side by side. The sigmoid at the end
    bounds the output: without a bound, the distance that the loss rewards would grow for ever.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        widths = tuple(widths)
        self.stride: int = 2 ** (len(widths) - 1)
        wider = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(
            Level(inputs, outputs) for inputs, outputs in [(3, widths[0]), *wider]
        )
        self.up = nn.ModuleList(Up(outer, inner) for inner, outer in reversed(wider))
        self.merge = nn.ModuleList(Level(2 * inner, inner) for inner, _ in reversed(wider))
        self.last = nn.Conv2d(widths[0], 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise TrainingError(
                f"images are {height}×{width} pixels; a U-Net of {len(self.down)} levels takes "
                f"sides that are multiples of {self.stride}; resize them, or give it fewer widths"
            )
        skips: list[Tensor] = []
        for level in self.down:
            x = level(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat((skips.pop(), up(x)), dim=1))
        # In float32 also under autocast: bfloat16 has fewer levels near 1 than an image.
        logits: Tensor = self.last(x)
        return logits.float().sigmoid()
