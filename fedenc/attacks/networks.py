"""Networks of SIA-GAN (Madono, Tanaka, Onishi & Ogawa, IEEE Access 2021).

Generator and discriminator as in the code published with the paper, where both differ: there is no
normalisation before the generator's tanh, and no activation after the discriminator's last
convolution. Spectral normalisation is the usual one (Miyato et al., ICLR 2018); the published code
has a variant of its own in the discriminator.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from fedenc.models.adapters import BlockLinear, BlockSpectralNorm

FEATURES = 16  # channels between the two parts of a generator
SLOPE = 0.1  # of leaky ReLUs
DOWN = 8  # a discriminator divides the sides of images by this


class BlockAdaptation(nn.Module):
    """One map for each block position, laid out again as pixels: float N×C×H×W to N×16×H×W, H and W
    multiples of ``block``."""

    def __init__(self, channels: int, size: tuple[int, int], block: int) -> None:
        super().__init__()
        self.block, self.grid = block, (size[0] // block, size[1] // block)
        positions, outputs = self.grid[0] * self.grid[1], FEATURES * block**2
        self.embed = BlockLinear(positions, channels * block**2, outputs)
        norm = BlockSpectralNorm(positions, outputs)
        parametrize.register_parametrization(self.embed, "weight", norm)
        self.norm = nn.BatchNorm1d(positions * outputs)

    def forward(self, x: Tensor) -> Tensor:
        blocks = F.unfold(x, self.block, stride=self.block).transpose(1, 2)  # N×P×(C·b²)
        embedded = self.embed(blocks)  # N×P×(16·b²)
        embedded = F.leaky_relu(self.norm(embedded.flatten(1)).view_as(embedded), SLOPE)
        return F.pixel_shuffle(embedded.transpose(1, 2).reshape(len(x), -1, *self.grid), self.block)


class SiaGenerator(nn.Module):
    """float N×c×H×W in [−1, 1], protected, to N×C×H×W in [−1, 1], natural.

    Args:
        channels: of protected images.
        outputs: channels of natural images.
        size: (H, W).
        block: pixels a side of what each sub-network sees.
        width: channels of the decoder (published: 64).
    """

    def __init__(
        self, channels: int, outputs: int, size: tuple[int, int], block: int, width: int
    ) -> None:
        super().__init__()
        self.adaptation = BlockAdaptation(channels, size, block)
        self.decoder = nn.Sequential(
            *(*_normalised(FEATURES, width), nn.LeakyReLU(SLOPE)),
            *(_Residual(width) for _ in range(3)),
            *(*_normalised(width, width), nn.LeakyReLU(SLOPE)),
            *(_convolution(width, outputs), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.adaptation(x))
        return made


class SiaDiscriminator(nn.Module):
    """float N×C×H×W in [−1, 1] to float N: the higher, the more natural.

    Args:
        channels: of images.
        size: (H, W), multiples of 8.
        width: channels of the last convolution (published: 1024); the others have an eighth, a
            quarter and half of it.
    """

    def __init__(self, channels: int, size: tuple[int, int], width: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for outputs in (width // 8, width // 4, width // 2):
            stages += [spectral_norm(nn.Conv2d(channels, outputs, 3, 1, 1)), nn.LeakyReLU(SLOPE)]
            stages += [spectral_norm(nn.Conv2d(outputs, outputs, 4, 2, 1)), nn.LeakyReLU(SLOPE)]
            channels = outputs
        self.layers = nn.Sequential(
            *stages,
            SelfAttention(width // 2),
            spectral_norm(nn.Conv2d(width // 2, width, 3, 1, 1)),
            SelfAttention(width),
            nn.Flatten(),
            spectral_norm(nn.Linear(width * (size[0] // DOWN) * (size[1] // DOWN), 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        judged: Tensor = self.layers(x)
        return judged.squeeze(1)


class SelfAttention(nn.Module):
    """x + γ·attention(x), over all places; γ starts at 0 (Zhang et al., ICML 2019, §3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, width // 8, 1)
        self.key = nn.Conv2d(width, width // 8, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        weights = (query.transpose(1, 2) @ key).softmax(dim=2)  # N×places×places
        attended: Tensor = (value @ weights.transpose(1, 2)).view_as(x)
        return x + self.gamma * attended


class _Residual(nn.Module):
    """LeakyReLU(x + BN(conv(LeakyReLU(BN(conv(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(*_normalised(width, width), nn.LeakyReLU(SLOPE)), *_normalised(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.layers(x), SLOPE)


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False))


def _normalised(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return _convolution(inputs, outputs), nn.BatchNorm2d(outputs)
