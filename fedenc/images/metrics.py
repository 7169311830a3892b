"""How alike two images are: structural similarity (SSIM) and peak signal-to-noise ratio (PSNR).

Published values of SSIM use different windows, so the name of the window is part of every value:

* ``uniform7``: a flat 7×7 window and sample covariance, scikit-image's defaults. Ito, Kinoshita &
  Kiya (2021) publish values of this kind.
* ``gaussian11``: an 11×11 Gaussian window, σ = 1.5, and population covariance, as in Wang, Bovik,
  Sheikh & Simoncelli, "Image quality assessment: from error visibility to structural similarity",
  IEEE Trans. Image Processing 13 (2004), §III-C.

Both use K = (0.01, 0.03), a data range of 255, and the mean over all whole windows and channels.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from fedenc.errors import DataError

Window = Literal["uniform7", "gaussian11"]

# Arguments with which scikit-image's structural_similarity computes the values of each window.
PARAMETERS: dict[Window, dict[str, Any]] = {
    "uniform7": {"win_size": 7, "data_range": 255, "K1": 0.01, "K2": 0.03},
    "gaussian11": {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 255,
        "K1": 0.01,
        "K2": 0.03,
    },
}
SIDES: dict[Window, int] = {"uniform7": 7, "gaussian11": 11}  # pixels

_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_TILE = 32  # outputs per product with a band matrix; a wider matrix would be mostly zeros
_CHUNK = {"cpu": 2**15, "cuda": 2**24}  # values at a time: they fit the cache, or fill a GPU


@torch.no_grad()
def ssim(a: Tensor, b: Tensor, window: Window = "gaussian11") -> Tensor:
    """Structural similarity of each pair of images (Wang et al. 2004, equation 13).

    Args:
        a: uint8 N×C×H×W.
        b: uint8 of the same shape, on the same device.
        window: see above.

    Returns:
        float64 N, each −1 to 1, on the device of the images.

    Raises:
        DataError: shapes or types that do not fit, or images smaller than the window.
    """
    _check(a, b)
    if window not in SIDES:
        raise DataError(f"the SSIM window is {window!r}; expected one of {', '.join(SIDES)}")
    side = SIDES[window]
    if min(a.shape[2:]) < side:
        raise DataError(
            f"images are {a.shape[2]}×{a.shape[3]} pixels; SSIM with the {window} window needs "
            f"at least {side}×{side}"
        )
    return torch.cat([_ssim(x.double(), y.double(), window) for x, y in _parts(a, b)])


@torch.no_grad()
def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair of images, in dB: 10·log₁₀(255² / MSE).

    The squared error is summed in integers, so it is exact. Equal images have an infinite ratio,
    and so has the mean of a batch with such a pair in it.

    Args:
        a: uint8 N×C×H×W.
        b: uint8 of the same shape, on the same device.

    Returns:
        float64 N, each 0 to infinity, on the device of the images.

    Raises:
        DataError: shapes or types that do not fit.
    """
    _check(a, b)
    differences = ((x.int() - y.int()).flatten(1) for x, y in _parts(a, b))
    squares = torch.cat([d.square().sum(1) for d in differences])
    return 10 * torch.log10(255**2 * a[0].numel() / squares.double())


def _check(a: Tensor, b: Tensor) -> None:
    for images in (a, b):
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise DataError(f"images to compare are {_described(images)}; expected uint8 N×C×H×W")
    if a.shape != b.shape:
        raise DataError(
            f"images to compare are {_described(a)} and {_described(b)}; expected equal shapes"
        )
    if not a.numel():
        raise DataError("there are no images to compare; expected at least one of each")


def _parts(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs, in parts that are worked on one at a time."""
    size = max(1, _CHUNK.get(a.device.type, 2**15) // a[0].numel())
    return zip(torch.split(a, size), torch.split(b, size), strict=True)


def _described(images: Tensor) -> str:
    dtype = str(images.dtype).removeprefix("torch.")
    return f"{dtype} {'×'.join(map(str, images.shape))}"


def _ssim(a: Tensor, b: Tensor, window: Window) -> Tensor:
    """float64 N×C×H×W twice to float64 N."""
    side = SIDES[window]
    mean_a, mean_b = _means(a, window), _means(b, window)
    squares, product = mean_a.square() + mean_b.square(), mean_a * mean_b
    sample = side**2 / (side**2 - 1) if window == "uniform7" else 1.0
    variances = (_means(a.square().addcmul_(b, b), window) - squares) * sample  # of both, summed
    covariance = (_means(a * b, window) - product) * sample
    values = (2 * product + _C1) * (2 * covariance + _C2)
    values /= (squares + _C1) * (variances + _C2)
    return values.flatten(1).mean(1)


def _means(images: Tensor, window: Window) -> Tensor:
    """The weighted mean of every whole window: float64 N×C×H×W to N×C×(H−s+1)×(W−s+1)."""
    along_rows = _filtered(images, window)
    return _filtered(along_rows.transpose(2, 3), window).transpose(2, 3)


def _filtered(rows: Tensor, window: Window) -> Tensor:
    """Each row with the window's profile: float64 …×W to …×(W−s+1).

    A product with a band matrix, tile by tile. On a CPU this is faster than a convolution, which
    has no fast path for float64.
    """
    width, overlap = rows.shape[-1], SIDES[window] - 1
    edges = [*range(0, width - overlap, _TILE), width - overlap]
    tiles = [
        rows[..., start : end + overlap] @ _band(end - start, window, rows.device)
        for start, end in pairwise(edges)
    ]
    return tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=-1)


@lru_cache(maxsize=256)
def _band(outputs: int, window: Window, device: torch.device) -> Tensor:
    """float64 (outputs + s − 1)×outputs, whose column k is the profile, k places down."""
    side = SIDES[window]
    places = torch.arange(side, dtype=torch.float64)
    if window == "uniform7":
        profile = torch.ones_like(places)
    else:
        profile = torch.exp(-(((places - side // 2) / 1.5) ** 2) / 2)
    profile /= profile.sum()
    band = torch.zeros(outputs + side - 1, outputs, dtype=torch.float64)
    columns = torch.arange(outputs)
    for place, weight in enumerate(profile):
        band[columns + place, columns] = weight
    return band.to(device)
