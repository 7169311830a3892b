"""Augmentation of uint8 images, in one batched gather: for owners before they encrypt, and for the
server on ciphertext.

Drawing parameters and applying them are separate steps, so that any call can be repeated exactly.
An augmentation is the product of an *exhaustive* part, the fixed set of copies of Sirichotedumrong,
Kinoshita & Kiya (IEEE Access 2019: horizontal flip ×2, shift by 4 pixels ×4), and a *random* part
(crop, horizontal flip, GridMask). Pixels that a shift leaves empty get the fill value.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from fedenc.errors import TrainingError

SHIFT = 4  # pixels: the shift of the exhaustive set and the padding of the random crop


@dataclass(frozen=True)
class GridMask:
    """Squares on a grid are filled, without rotation (Chen, Liu, Zhao & Jia, arXiv 2001.04086)."""

    shortest: int = 8  # pixels: period of the grid, drawn from shortest..longest
    longest: int = 16
    keep: float = 0.4  # the paper's r, of a period d; a square of side (1 − r)·d is filled
    probability: float = 0.8  # share of the images that are masked


@dataclass(frozen=True)
class Augmentation:
    """What is done to an image: every (shift, flip) in turn, each with fresh random parts."""

    shifts: tuple[tuple[int, int], ...] = ((0, 0),)  # rows down, columns right, in pixels
    flips: tuple[bool, ...] = (False,)
    pad: int = 0  # random shift by −pad..pad on each axis: the usual padded crop
    flip: bool = False  # random horizontal flip, probability 1/2
    gridmask: GridMask | None = None

    @property
    def random(self) -> bool:
        """Whether two draws for one image may differ."""
        return bool(self.pad) or self.flip or self.gridmask is not None

    @property
    def copies(self) -> int:
        """Size of the exhaustive set: an epoch visits every image so many times."""
        return len(self.shifts) * len(self.flips)

    @property
    def identity(self) -> bool:
        return self == Augmentation()

    @property
    def parts(self) -> frozenset[str]:
        """What it does to an image, in the words of ``Cipher.augmentations``."""
        done = {
            "shift": any(shift != (0, 0) for shift in self.shifts),
            "flip": self.flip or any(self.flips),
            "crop": bool(self.pad),
            "gridmask": self.gridmask is not None,
        }
        return frozenset(word for word, does in done.items() if does)

    def missing_from(self, tolerated: Collection[str]) -> tuple[str, ...]:
        """Its parts, sorted, that are not among the ``tolerated`` ones."""
        return () if "any" in tolerated else tuple(sorted(self.parts.difference(tolerated)))


_SHIFTS = ((0, 0), (0, SHIFT), (SHIFT, 0), (SHIFT, SHIFT))

AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "none": Augmentation(),
        "flip": Augmentation(flip=True),
        "crop": Augmentation(pad=SHIFT),
        "crop-flip": Augmentation(pad=SHIFT, flip=True),
        "crop-flip-gridmask": Augmentation(pad=SHIFT, flip=True, gridmask=GridMask()),
        "flip-all": Augmentation(flips=(False, True)),
        "shift-all": Augmentation(shifts=_SHIFTS),
        "shift-flip-all": Augmentation(shifts=_SHIFTS, flips=(False, True)),
    }
)
"""Augmentations by name: random ones, and the paper's exhaustive sets (``-all``: ×2, ×4, ×8)."""


def strongest(tolerated: Collection[str]) -> str:
    """The strongest usual random augmentation, by name, all of whose parts are tolerated."""
    usual = ("crop-flip", "flip", "crop", "none")
    return next(n for n in usual if not AUGMENTATIONS[n].missing_from(tolerated))


def named(name: str) -> Augmentation:
    """The augmentation of that name; TrainingError if there is none."""
    if name not in AUGMENTATIONS:
        known = ", ".join(AUGMENTATIONS)
        raise TrainingError(f"augmentation is {name!r}; expected one of {known}")
    return AUGMENTATIONS[name]


@dataclass(frozen=True)
class Draw:
    """Parameters for N images, one row per image; integers are int64."""

    down: Tensor  # N
    right: Tensor  # N
    flip: Tensor  # N, bool; an image is flipped first, then shifted
    grid: Tensor | None = None  # N×4: period (0: image unchanged), visible part, row, column

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, rows: slice | Tensor) -> "Draw":
        grid = None if self.grid is None else self.grid[rows]
        return Draw(self.down[rows], self.right[rows], self.flip[rows], grid)

    def to(self, device: torch.device) -> "Draw":
        grid = None if self.grid is None else self.grid.to(device)
        return Draw(self.down.to(device), self.right.to(device), self.flip.to(device), grid)


def draw(augmentation: Augmentation, copy: Tensor, generator: torch.Generator) -> Draw:
    """Parameters for N images, of which the n-th is to be exhaustive copy ``copy[n]``.

    ``copy`` is int64 N in 0..copies−1. The random parts come from ``generator`` (on the CPU).
    """
    count = len(copy)
    shifts = torch.tensor(augmentation.shifts)
    flips = torch.tensor(augmentation.flips)
    down, right = shifts[copy // len(flips)].unbind(1)
    flip = flips[copy % len(flips)]
    if augmentation.pad:
        bounds = (-augmentation.pad, augmentation.pad + 1)
        down = down + torch.randint(*bounds, (count,), generator=generator)
        right = right + torch.randint(*bounds, (count,), generator=generator)
    if augmentation.flip:
        flip = flip ^ torch.randint(2, (count,), generator=generator).bool()
    grid = None
    if augmentation.gridmask is not None:
        grid = _draw_grid(augmentation.gridmask, count, generator)
    return Draw(down, right, flip, grid)


def _draw_grid(mask: GridMask, count: int, generator: torch.Generator) -> Tensor:
    period = torch.randint(mask.shortest, mask.longest + 1, (count,), generator=generator)
    visible = (period * mask.keep + 0.5).long()
    offsets = (torch.rand(2, count, generator=generator) * period).long()
    masked = torch.rand(count, generator=generator) < mask.probability
    return torch.stack((period * masked, visible, offsets[0], offsets[1]), dim=1)


def apply(images: Tensor, drawn: Draw, *, fill: int = 0) -> Tensor:
    """uint8 N×C×H×W, augmented by the N rows of ``drawn`` (on the same device)."""
    moved = shift_and_flip(images, drawn.down, drawn.right, drawn.flip, fill=fill)
    return moved if drawn.grid is None else mask_grid(moved, drawn.grid, fill=fill)


def shift_and_flip(
    images: Tensor, down: Tensor, right: Tensor, flip: Tensor, *, fill: int = 0
) -> Tensor:
    """Flip the images marked in ``flip`` (bool N) left to right, then shift by int64 N pixels.

    uint8 N×C×H×W to the same shape; what the shift uncovers becomes ``fill``.
    """
    count, channels, height, width = images.shape
    device = images.device
    # One row and one column of fill around the image; pixels further out are clamped to it.
    framed = F.pad(images, (1, 1, 1, 1), value=fill).flatten(2)
    rows = torch.arange(1, height + 1, device=device) - down[:, None]
    columns = torch.arange(1, width + 1, device=device) - right[:, None]
    columns = torch.where(flip[:, None], width + 1 - columns, columns)
    rows, columns = rows.clamp(0, height + 1), columns.clamp(0, width + 1)
    index = rows[:, :, None] * (width + 2) + columns[:, None, :]  # N×H×W
    index = index.view(count, 1, -1).expand(-1, channels, -1)
    return framed.gather(2, index).view(images.shape)


def mask_grid(images: Tensor, grid: Tensor, *, fill: int = 0) -> Tensor:
    """Set the squares of a grid to ``fill``. ``grid`` is ``Draw.grid``: int64 N×4."""
    height, width = images.shape[-2:]
    period, visible, row, column = grid.to(images.device).unsqueeze(2).unbind(1)  # N×1 each
    step = period.clamp_min(1)
    rows = (torch.arange(height, device=images.device) + row) % step >= visible
    columns = (torch.arange(width, device=images.device) + column) % step >= visible
    lost = (rows & (period > 0))[:, None, :, None] & columns[:, None, None, :]  # N×1×H×W
    return images.masked_fill(lost, fill)


def expand(
    images: Tensor, augmentation: Augmentation, generator: torch.Generator, *, fill: int = 0
) -> Tensor:
    """Every copy of every image, as an owner makes them before encrypting: Enc(f_d(T)).

    uint8 N×C×H×W to (N·copies)×C×H×W; image n owns the consecutive rows n·copies onward.
    """
    copies = augmentation.copies
    copy = torch.arange(copies).repeat(len(images))
    drawn = draw(augmentation, copy, generator).to(images.device)
    return apply(images.repeat_interleave(copies, dim=0), drawn, fill=fill)
