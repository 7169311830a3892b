"""Adaptation networks: learned front ends that make ciphertexts easier for a usual classifier."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 4  # pixels: block side of LE and ELE


def conv1x1(channels: int, size: tuple[int, int]) -> nn.Module:
    """Pointwise adaptation for pixel-based encryption (Sirichotedumrong et al., ICIP 2019,
    arXiv 1905.01827): convolutions of kernel 1 and stride 1.

    float N×C×H×W to the same shape. The widths C → 8 → 32 → C and the ReLUs are our choice: the
    paper does not give them.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 8, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 32, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, channels, 1),
    )


def le_adaptnet(channels: int, size: tuple[int, int]) -> nn.Module:
    """The block-wise sub-network of Tanaka (ICCE-TW 2018) for learnable encryption (LE).

    float N×C×H×W to N×32×H×W, H and W multiples of 4: every 4×4 block is embedded by one learned
    map, the same for all blocks, and laid out again as pixels.
    """
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, 48, BLOCK, stride=BLOCK),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(48),
        nn.Conv2d(48, 48, 1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(48),
        nn.Conv2d(48, 32 * BLOCK**2, 1),
        nn.PixelShuffle(BLOCK),
    )


class BlockLinear(nn.Module):
    """One linear map for each block position: float N×P×I to N×P×O."""

    def __init__(self, positions: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(positions, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(positions, 1, outputs))
        nn.init.kaiming_uniform_(self.weight.view(-1, inputs), a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        # P×N×I times P×I×O
        mixed = torch.baddbmm(self.bias, x.transpose(0, 1), self.weight.transpose(1, 2))
        return mixed.transpose(0, 1)


class BlockSpectralNorm(nn.Module):
    """Divides each position's matrix by its largest singular value (Miyato et al., ICLR 2018), by
    one power iteration a step in training, for all positions at once."""

    u: Tensor

    def __init__(self, positions: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(positions, outputs, 1), dim=1))

    def forward(self, weight: Tensor) -> Tensor:
        # In float32 also under autocast: the iteration would stall at bfloat16's three digits.
        kind = "cpu" if weight.is_meta else weight.device.type  # meta has no autocast
        with torch.autocast(kind, enabled=False):
            return weight / self._largest(weight)

    def _largest(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            v = F.normalize(weight.transpose(1, 2) @ self.u, dim=1)
            u = F.normalize(weight @ v, dim=1)
            if self.training:
                self.u.copy_(u)
        return u.transpose(1, 2) @ weight @ v


class EleAdaptNet(nn.Module):
    """ELE-AdaptNet (Madono, Tanaka, Onishi & Ogawa, arXiv 2001.07761) for extended learnable
    encryption: one map for each block position, then a learned permutation of the positions.

    float N×C×H×W to N×16×H×W, H and W multiples of 4. ``penalty`` (float, scalar) belongs to the
    last forward pass and has to be added to the loss: it drives the mixing matrix towards a
    permutation (weight 1e-3), and the result towards smoothness (weight 0.1). Both are those of the
    code published with the paper, which neither keeps the mixing matrix from being negative nor
    starts it near a permutation.
    """

    permutation_weight, variation_weight = 1e-3, 0.1

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.grid = (size[0] // BLOCK, size[1] // BLOCK)
        positions, outputs = self.grid[0] * self.grid[1], 16 * BLOCK**2
        self.embed = BlockLinear(positions, channels * BLOCK**2, outputs)
        nn.utils.parametrize.register_parametrization(
            self.embed, "weight", BlockSpectralNorm(positions, outputs)
        )
        self.norm = nn.BatchNorm1d(positions * outputs)
        self.mix = nn.Parameter(torch.empty(positions, positions))
        nn.init.kaiming_uniform_(self.mix, a=5**0.5)
        self.penalty = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        blocks = F.unfold(x, BLOCK, stride=BLOCK).transpose(1, 2)  # N×P×(C·16)
        embedded = self.embed(blocks)  # N×P×256
        embedded = F.leaky_relu(self.norm(embedded.flatten(1)).view_as(embedded), 0.2)
        moved = embedded.transpose(1, 2) @ self.mix.to(embedded.dtype).t()  # N×256×P
        images = F.pixel_shuffle(moved.view(len(x), -1, *self.grid), BLOCK)
        self.penalty = self.permutation_weight * _distance_from_permutation(self.mix)
        self.penalty = self.penalty + self.variation_weight * _total_variation(images)
        return images


def _distance_from_permutation(matrix: Tensor) -> Tensor:
    """L1 − L2 norms of all rows and columns (the paper's Eq. 7), over the number of entries: zero
    exactly where none of them has two entries that are not zero."""
    norms = [
        torch.linalg.vector_norm(matrix, 1, dim) - torch.linalg.vector_norm(matrix, 2, dim)
        for dim in (0, 1)
    ]
    return torch.stack(norms).sum() / matrix.numel()


def _total_variation(images: Tensor) -> Tensor:
    """Squared differences to the pixels below and to the right, of N×C×H×W: of three channels only
    and without the last row and column, but over N·(H−1)·W·C, as in the published code."""
    count, channels, height, width = images.shape
    seen = images[:, :3].float()
    corner, below, right = seen[..., :-1, :-1], seen[..., 1:, :-1], seen[..., :-1, 1:]
    squares = (corner - below).square() + (corner - right).square()
    return squares.sum() / (count * (height - 1) * width * channels)


@dataclass(frozen=True)
class Adapter:
    make: Callable[[int, tuple[int, int]], nn.Module]
    block: int = 1  # height and width must be multiples of it
    outputs: int | None = None  # channels that it gives to the body; None: as many as it gets


ADAPTERS = {
    "conv1x1": Adapter(conv1x1),
    "le-adaptnet": Adapter(le_adaptnet, BLOCK, 32),
    "ele-adaptnet": Adapter(EleAdaptNet, BLOCK, 16),
}
