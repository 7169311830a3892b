"""Residual networks for small images (He, Zhang, Ren & Sun, CVPR 2016, arXiv 1512.03385)."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (figure 2, with batch normalisation).

    N×C×H×W to N×D×⌈H/stride⌉×⌈W/stride⌉. ``downsample`` is a shortcut that changes the shape as the
    convolutions do; None: the identity. Parameters are named as in torchvision, which is not used
    here because importing it also imports torch's compiler, over a thousand modules.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu(y)
        return activated


class PaddedShortcut(nn.Module):
    """Shortcut "option A" (§4.2): every second pixel, and zeros for the channels that are new.

    N×C×H×W to N×D×⌈H/2⌉×⌈W/2⌉, without parameters. The zeros go half before, half after.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _kaiming(body: nn.Module) -> None:
    for module in body.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


def _kaiming_for_relu(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet20(channels: int, classes: int) -> nn.Module:
    """ResNet-20 for CIFAR (§4.2, n = 3): 16, 32, 64 filters, option-A shortcuts, 0.27 M parameters.

    float N×channels×H×W to N×classes, for any H and W.
    """
    width, depth = 16, 3
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    inputs = width
    for outputs in (width, 2 * width, 4 * width):
        for _ in range(depth):
            narrows = inputs != outputs
            shortcut = PaddedShortcut(inputs, outputs) if narrows else None
            layers.append(BasicBlock(inputs, outputs, 2 if narrows else 1, shortcut))
            inputs = outputs
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
    _kaiming(body)
    return body


def resnet18(channels: int, classes: int) -> nn.Module:
    """ResNet-18 (table 1) with the usual stem for small images: 3×3 at stride 1, no max-pooling.

    float N×channels×H×W to N×classes; 11.17 M parameters for RGB and ten classes.
    """
    # An ImageNet stem is made and replaced, as when this network was torchvision's: so a seed gives
    # the weights that it always gave.
    stem = nn.Conv2d(3, 64, 7, bias=False)
    stages = [_stage(64, 64, 1), _stage(64, 128, 2), _stage(128, 256, 2), _stage(256, 512, 2)]
    body = nn.Sequential(
        OrderedDict(
            conv1=stem,
            bn1=nn.BatchNorm2d(64),
            relu=nn.ReLU(inplace=True),
            **{f"layer{number}": stage for number, stage in enumerate(stages, 1)},
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(512, classes),
        )
    )
    _kaiming_for_relu(body)
    body.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    _kaiming_for_relu(body.conv1)
    return body


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Two blocks, the first behind a projection ("option B") where it changes the shape."""
    shortcut = None
    if stride > 1:
        projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, BasicBlock(outputs, outputs))
