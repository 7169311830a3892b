"""A network over the set of an image's blocks: where each block lies makes no difference.

Several ciphers move blocks, so that under independent keys their order tells nothing.
"""

import torch
from torch import Tensor, nn

WIDTH, DEPTH = 192, 3


class Exchange(nn.Module):
    """A permutation-equivariant layer (Zaheer et al., "Deep Sets", NeurIPS 2017, eq. 4, with a mean
    for the sum): every block sees itself and the mean of all, beside a shortcut.

    float N×C×rows×columns, one column of C values a block, to the same shape.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Conv2d(width, width, 1, bias=False)
        self.others = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.own(x) + self.others(x.mean((2, 3), keepdim=True))
        changed: Tensor = self.relu(self.norm(y))
        return x + changed


class Pool(nn.Module):
    """The mean and the maximum over all blocks: N×C×rows×columns to N×2C."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean((2, 3)), x.amax((2, 3))), dim=1)


def block_set(channels: int, classes: int, block: int) -> nn.Module:
    """Deep Sets over blocks of block×block pixels, 0.3 M parameters at blocks of 4×4.

    float N×channels×H×W, H and W multiples of block, to N×classes. The same small network embeds
    every block, layers exchange what blocks have in common, and means and maxima over all blocks
    are classified. Widths and depth are our choice.
    """
    embedding = [
        nn.Conv2d(channels, WIDTH, block, stride=block, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(inplace=True),
    ]
    layers = [Exchange(WIDTH) for _ in range(DEPTH)]
    head = [
        nn.Linear(2 * WIDTH, WIDTH, bias=False),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(inplace=True),
        nn.Linear(WIDTH, classes),
    ]
    return nn.Sequential(*embedding, *layers, Pool(), *head)
