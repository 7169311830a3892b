"""A small network for studies on a CPU."""

from collections.abc import Iterator

from torch import nn

WIDTHS = (48, 128, 256)


def fast(channels: int, classes: int) -> nn.Module:
    """Three blocks of two 3×3 convolutions behind a 2×2 stem, 1.1 M parameters.

    float N×channels×H×W to N×classes, H and W at least 9. The layout is that of the CIFAR-10 speed
    runs (Jordan 2024, arXiv 2404.00498, "airbench94"); ours is narrower, has ReLUs, and learns its
    stem: theirs is a fixed whitening of plain images, which does not suit ciphertexts.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, 24, 2), nn.ReLU(inplace=True)]
    inputs = 24
    for width in WIDTHS:
        layers += [*_convolution(inputs, width, pool=True), *_convolution(width, width)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def _convolution(inputs: int, outputs: int, *, pool: bool = False) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    if pool:
        yield nn.MaxPool2d(2)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU(inplace=True)
