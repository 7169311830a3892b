"""Small networks for studies on a CPU."""

from collections.abc import Iterator

from torch import nn

STEM = 24  # channels


def fast(channels: int, classes: int) -> nn.Module:
    """Three blocks of two 3×3 convolutions behind a 2×2 stem, 1.1 M parameters.

    float N×channels×H×W to N×classes, H and W at least 9. The layout is that of the CIFAR-10 speed
    runs (Jordan 2024, arXiv 2404.00498, "airbench94"); ours is narrower, has ReLUs, and learns its
    stem: theirs is a fixed whitening of plain images, which does not suit ciphertexts.
    """
    return _network(channels, classes, (48, 128, 256))


def tiny(channels: int, classes: int) -> nn.Module:
    """``fast`` at half the width, 0.3 M parameters: for a thousand images and seconds on a CPU."""
    return _network(channels, classes, (24, 64, 128))


def _network(channels: int, classes: int, widths: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(channels, STEM, 2), nn.ReLU(inplace=True)]
    inputs = STEM
    for width in widths:
        layers += [*_convolution(inputs, width, pool=True), *_convolution(width, width)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def _convolution(inputs: int, outputs: int, *, pool: bool = False) -> Iterator[nn.Module]:
    yield nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    if pool:
        yield nn.MaxPool2d(2)
    yield nn.BatchNorm2d(outputs)
    yield nn.ReLU(inplace=True)
