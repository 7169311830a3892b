"""Networks of a GAN-based transformation, in the spirit of Sirichotedumrong & Kiya (EUSIPCO 2021).

That paper ("A GAN-based image transformation scheme for privacy-preserving deep neural networks",
arXiv 2006.01342) trains a CycleGAN-like pair of generators with a classifier, needs no key, and
leaves its layers and weights unstated. What stands here is therefore ours: the generator and the
discriminator of CycleGAN (Zhu, Park, Isola & Efros, ICCV 2017, §4 and appendix 7.2), with six
residual blocks, as that paper uses for its smallest images.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc.errors import TrainingError

BLOCKS = 6  # residual blocks of a generator
LEVELS = 3  # resolutions of a generator, and widths that it takes


def build_generator(widths: Sequence[int]) -> "Generator":
    """A generator from the widths of a transformation's configuration, of which it takes the first
    three: of the default 64, 128, 256, 512, 1024 these are CycleGAN's own."""
    return Generator(widths[:LEVELS])


def check_size(widths: Sequence[int], height: int, width: int) -> None:
    """TrainingError unless generator and discriminator of ``widths`` take images of this size."""
    factor = 2 ** (min(len(widths), LEVELS) - 1)
    least = max(4, 3 * factor)
    if height % factor or width % factor or min(height, width) < least:
        raise TrainingError(
            f"images are {height}×{width} pixels; a GAN with {min(len(widths), LEVELS)} widths "
            f"takes sides that are multiples of {factor}, from {least}"
        )


class Generator(nn.Module):
    """float N×3×H×W in [0, 1] to the same: one image of a domain to one of the other.

    A 7×7 convolution, a convolution of stride 2 for every further width, residual blocks, and all
    the way back up. Normalised an image at a time, so that no image depends on its neighbours.

    Args:
        widths: channels at each resolution, finest first, one to three.
        blocks: residual blocks at the coarsest resolution.

    Raises:
        TrainingError: no or too many widths; in forward, images of a size that does not fit.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256), blocks: int = BLOCKS) -> None:
        super().__init__()
        if not 1 <= len(widths) <= LEVELS or min(widths) < 1 or blocks < 0:
            raise TrainingError(
                f"a generator has widths {tuple(widths)} and {blocks} blocks; expected one to "
                f"{LEVELS} positive widths, and no fewer than 0 blocks"
            )
        self.widths = tuple(widths)
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        layers: list[nn.Module] = [
            nn.Conv2d(3, self.widths[0], 7, padding=3, padding_mode="reflect", bias=False),
            *_normalised(self.widths[0]),
        ]
        for fine, coarse in pairs:
            layers += [nn.Conv2d(fine, coarse, 3, 2, 1, bias=False), *_normalised(coarse)]
        layers += [_Residual(self.widths[-1]) for _ in range(blocks)]
        for fine, coarse in reversed(pairs):
            up = nn.ConvTranspose2d(coarse, fine, 3, 2, 1, output_padding=1, bias=False)
            layers += [up, *_normalised(fine)]
        layers.append(nn.Conv2d(self.widths[0], 3, 7, padding=3, padding_mode="reflect"))
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        check_size(self.widths, *images.shape[-2:])
        made: Tensor = self.layers(2 * images - 1)
        return (torch.tanh(made.float()) + 1) / 2


class Discriminator(nn.Module):
    """float N×3×H×W in [0, 1] to float N×1×h×w: how real each patch is, 1 for real, 0 for made.

    A PatchGAN (Isola, Zhu, Zhou & Efros, CVPR 2017, appendix 6.1.2): 4×4 convolutions with leaky
    ReLU, of stride 2 for all widths but the last; with the default widths, patches of 34×34 pixels.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number, width in enumerate(widths):
            stride = 1 if number and number == len(widths) - 1 else 2
            layers.append(nn.Conv2d(channels, width, 4, stride, 1, bias=number == 0))
            if number:
                layers.append(nn.InstanceNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
            channels = width
        layers.append(nn.Conv2d(channels, 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        judged: Tensor = self.layers(2 * images - 1)
        return judged


class _Residual(nn.Module):
    """x + conv(relu(conv(x))), both 3×3 and normalised, at one resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect", bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect", bias=False)
        self.normalise = nn.InstanceNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        between = F.relu(self.normalise(self.first(x)))
        added: Tensor = x + self.normalise(self.second(between))
        return added


def _normalised(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(width), nn.ReLU()


def _initialise(network: nn.Module) -> None:
    """Weights from N(0, 0.02), biases at 0 (CycleGAN, appendix 7.1)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
