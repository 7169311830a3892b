"""Densely connected networks (Huang, Liu, van der Maaten & Weinberger, CVPR 2017, 1608.06993)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """BN, ReLU, 3×3 convolution to ``growth`` new channels, behind those that came in (§3)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv(torch.relu(self.norm(x)))), dim=1)


def transition(width: int) -> nn.Sequential:
    """BN, ReLU, 1×1 convolution, 2×2 average pooling (§3): N×width×H×W to half of each side."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(width, width, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


def densenet40_12(channels: int, classes: int) -> nn.Module:
    """DenseNet (L = 40, k = 12), neither bottleneck nor compression: table 2, 1.0 M parameters.

    float N×channels×H×W to N×classes, H and W at least 4. Three blocks of twelve layers; no
    dropout, as in the paper's runs with augmentation.
    """
    growth, width = 12, 16
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range(12):
            layers.append(DenseLayer(width, growth))
            width += growth
        if block < 2:
            layers.append(transition(width))
    body = nn.Sequential(
        *layers,
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return body
