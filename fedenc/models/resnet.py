"""Residual networks for small images (He, Zhang, Ren & Sun, CVPR 2016, arXiv 1512.03385)."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet


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
    body: nn.Module = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    body.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    body.maxpool = nn.Identity()
    return body
