"""How much of an image an estimate shows: measures of pairs of images, one value a pair.

Structural similarity and PSNR are those of :mod:`fedenc.images.metrics`. They fall when an estimate
is negative or too dark, although a person sees everything in it; so there are three more: the
correlation of edges, the rank of the true image among others, and what a classifier recognises.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isnan, sqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fedenc import seeding
from fedenc.ciphers.base import KeyParts, Shape
from fedenc.errors import DataError
from fedenc.images.metrics import SIDES, psnr, ssim

BINARY = frozenset({"recognised"})  # yes or no for each image
AMONG = 100  # images among which the true one is ranked
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
_LPIPS_SIDE = 64  # pixels
Recogniser = Callable[[Tensor], Tensor]
Values = dict[str, Tensor]
_95 = 1.959963984540054  # a normal deviate's two-sided 95 %


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval over images."""

    mean: float
    low: float
    high: float


def compare(estimates: Tensor, plain: Tensor) -> Values:
    """All measures of pairs that need nothing but the pair.

    Args:
        estimates: uint8 (N, C, H, W).
        plain: uint8 of the same shape, the true images.

    Returns:
        float64 (N,) each: ``ssim_uniform7`` and ``ssim_gaussian11`` in RGB, the same with ``_gray``
        on luma, ``psnr`` in dB (at most 100, that of nearly equal images), ``edges`` and ``bytes``,
        the share of bytes that are right; ``lpips`` where its weights are at hand. A window that
        does not fit into the images is left out.
    """
    luma = gray(estimates), gray(plain)
    found: Values = {}
    for window, side in SIDES.items():
        if min(plain.shape[2:]) >= side:
            found[f"ssim_{window}"] = ssim(estimates, plain, window)
            found[f"ssim_{window}_gray"] = ssim(*luma, window)
    found["psnr"] = psnr(estimates, plain).clamp_max(100.0)
    found["edges"] = edge_correlation(estimates, plain)
    found["bytes"] = (estimates == plain).flatten(1).double().mean(1)
    if plain.shape[1] == 3 and lpips_weights() is not None:
        found["lpips"] = lpips(estimates, plain)
    return found


def lpips_weights() -> Path | None:
    """AlexNet's weights as torchvision keeps them, if they are at hand; nothing is downloaded."""
    found = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS
    return found if found.exists() else None


def lpips(a: Tensor, b: Tensor) -> Tensor:
    """Learned perceptual distance with AlexNet (Zhang et al., CVPR 2018), of images enlarged to 64
    pixels where they are smaller, since the network takes no less.

    Args:
        a: uint8 (N, 3, H, W).
        b: uint8 of the same shape.

    Returns:
        float64 (N,), 0 for equal images.
    """
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as distance

    found = []
    for parts in zip(torch.split(a, 64), torch.split(b, 64), strict=True):
        x, y = (_enlarged(part.float() / 255) for part in parts)
        found.append(distance(x, y, net_type="alex", reduction="none", normalize=True).flatten())
    return torch.cat(found).double()


def _enlarged(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    if min(height, width) >= _LPIPS_SIDE:
        return images
    scale = _LPIPS_SIDE / min(height, width)
    return F.interpolate(images, scale_factor=scale, mode="bilinear", antialias=True)


def gray(images: Tensor) -> Tensor:
    """Luma of ITU-R BT.601: uint8 (N, 3, H, W) to (N, 1, H, W); other numbers of channels become
    their mean."""
    if images.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
        luma = (images.float() * weights).sum(1, keepdim=True)
        return luma.round().to(torch.uint8)
    return images.float().mean(1, keepdim=True).round().to(torch.uint8)


def edge_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of two images' edge maps: the magnitude of Sobel's gradient of luma.

    It does not change when an image is inverted or its contrast is. 0 where an image has no edges.

    Args:
        a: uint8 (N, C, H, W), H and W at least 3.
        b: uint8 of the same shape.

    Returns:
        float64 (N,), each −1 to 1.
    """
    return _correlation(_edges(a).flatten(1), _edges(b).flatten(1))


def _edges(images: Tensor) -> Tensor:
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=images.device)
    both = torch.stack((kernel, kernel.T)).unsqueeze(1)
    gradient: Tensor = F.conv2d(gray(images).float(), both)
    return gradient.square().sum(1).sqrt()


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of rows (N, D) with rows (N, D); 0 where one is constant."""
    return (_standardised(a) * _standardised(b)).sum(-1)


def _standardised(rows: Tensor) -> Tensor:
    centred = rows.double() - rows.double().mean(-1, keepdim=True)
    norms: Tensor = centred.square().sum(-1, keepdim=True).sqrt()
    return centred / norms.clamp_min(1e-9)


def rank(estimates: Tensor, plain: Tensor, others: Tensor, *, seed: int) -> Tensor:
    """The place of the true image among 100, ordered by likeness to the estimate.

    Likeness is the absolute correlation of all values, so that a negative is as good as a positive.
    Of equally like images the true one counts as in their middle.

    Args:
        estimates: uint8 (N, C, H, W).
        plain: uint8 of the same shape, the true images.
        others: uint8 (M, C, H, W), from which 99 (M, if they are fewer) are drawn for each; none
            may be the true image.
        seed: of the drawing.

    Returns:
        float64 (N,): 1 is best; the middle, 50.5, is what guessing gives.
    """
    count = min(AMONG - 1, len(others))
    generator = seeding.generator(seed, "rank")
    drawn = torch.rand(len(plain), len(others), generator=generator).argsort(1)[:, :count]
    known, found = _standardised(others.flatten(1)), _standardised(estimates.flatten(1))
    likeness = (found @ known.T).abs().gather(1, drawn.to(found.device))
    true = (found * _standardised(plain.flatten(1))).sum(1).abs().unsqueeze(1)
    ties = (likeness - true).abs() <= 1e-12
    return 1 + ((likeness > true) & ~ties).double().sum(1) + ties.double().sum(1) / 2


def key_share(
    found: Iterable[KeyParts], true: Iterable[KeyParts], *, complement: bool = False
) -> float:
    """The share of the key's entries that are right, over all keys and parts; 0 if there are none.

    Args:
        found: int64 tensors for each key, −1 where unknown.
        true: those that ``Cipher.draw`` gave.
        complement: also accept all masks complemented (0 for 1, or 0 for 255), if that is better.
    """
    right = total = 0
    for estimate, key in zip(found, true, strict=True):
        counts = []
        for flip in (False, True)[: 1 + complement]:
            counts.append(
                sum(
                    int((_complemented(e.long(), k) if flip else e.long()).eq(k.long()).sum())
                    for e, k in zip(estimate, key, strict=True)
                )
            )
        right += max(counts)
        total += sum(part.numel() for part in key)
    return right / total if total else 0.0


def _complemented(found: Tensor, true: Tensor) -> Tensor:
    """An estimate of a mask with its two values exchanged; other parts as they are."""
    top = int(true.max()) if true.numel() else 0
    mask = bool(((true == 0) | (true == top)).all()) and top in (1, 255)
    return torch.where(found < 0, found, top - found) if mask else found


def interval(values: Tensor) -> Interval:
    """Mean and 95 % confidence interval of float (N,), by the normal approximation."""
    mean = float(values.double().mean())
    half = _95 * float(values.double().std()) / sqrt(len(values)) if len(values) > 1 else 0.0
    return Interval(mean, mean - half, mean + half)


def share_interval(hits: int, of: int) -> Interval:
    """A share and its 95 % confidence interval (Wilson, JASA 1927)."""
    if not of:
        raise DataError("a share of nothing has no value")
    p, z = hits / of, _95**2 / of
    middle, half = (p + z / 2) / (1 + z), sqrt(z * (p * (1 - p) + z / 4)) / (1 + z)
    # At 0 and 1 the interval ends there, up to rounding.
    return Interval(p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)))


def summarise(values: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Means by name, and the ends of their intervals under ``NAME_low`` and ``NAME_high``. The
    interval of what is yes or no for each image is Wilson's."""
    found: dict[str, float | None] = {}
    for name, each in values.items():
        of = share_interval(int(each.sum()), len(each)) if name in BINARY else interval(each)
        for suffix, value in (("", of.mean), ("_low", of.low), ("_high", of.high)):
            found[name + suffix] = None if isnan(value) else value
    return found


def as_picture(images: Tensor, shape: Shape) -> Tensor:
    """Protected images in the shape of plain ones, as a person would look at them.

    Three gray planes of the plain size that lie below each other become channels again; what is
    below or beside the plain size is cut off; a single channel is repeated.

    Args:
        images: uint8 (N, C', H', W').
        shape: (C, H, W) of plain images.
    """
    channels, height, width = shape
    if images.shape[1] == 1 and channels == 3 and images.shape[2] >= 3 * height:
        images = images.reshape(len(images), 3, -1, images.shape[3])
    if images.shape[2] < height or images.shape[3] < width:
        images = F.interpolate(images.float(), (height, width)).to(torch.uint8)
    return images[:, :, :height, :width].expand(-1, channels, -1, -1).contiguous()
