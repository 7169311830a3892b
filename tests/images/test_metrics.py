"""SSIM and PSNR of batches, against scikit-image's values for one pair at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from fedenc.errors import DataError
from fedenc.images import metrics
from fedenc.images.metrics import PARAMETERS, SIDES, Window

WINDOWS = list(SIDES)


def noise(*shape: int, seed: int) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(values)


def near(images: Tensor, spread: int, seed: int) -> Tensor:
    steps = np.random.default_rng(seed).integers(-spread, spread + 1, images.shape)
    return (images.int() + torch.from_numpy(steps)).clamp(0, 255).to(torch.uint8)


def reference(a: Tensor, b: Tensor, window: Window) -> list[float]:
    return [
        structural_similarity(x.numpy(), y.numpy(), channel_axis=0, **PARAMETERS[window])
        for x, y in zip(a, b, strict=True)
    ]


@pytest.mark.parametrize("window", WINDOWS)
@given(
    count=st.integers(1, 5),
    channels=st.integers(1, 4),
    height=st.integers(11, 90),
    width=st.integers(11, 90),
    spread=st.integers(0, 255),
    seed=st.integers(0, 2**32),
)
def test_ssim_is_that_of_scikit_image(
    window: Window, count: int, channels: int, height: int, width: int, spread: int, seed: int
) -> None:
    a = noise(count, channels, height, width, seed=seed)
    b = near(a, spread, seed + 1)
    found = metrics.ssim(a, b, window)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, reference(a, b, window), rtol=0, atol=1e-9)


@pytest.mark.parametrize("window", WINDOWS)
def test_ssim_of_natural_like_images(window: Window) -> None:
    """Smooth images, flat areas, and many in one batch, more than are held at a time."""
    rows, columns = np.mgrid[0:32, 0:32]
    waves = [128 + 120 * np.sin(rows / a + columns / (a + 2)) for a in range(2, 302)]
    a = torch.from_numpy(np.stack(waves).astype(np.uint8)).reshape(100, 3, 32, 32)
    a[0] = 0
    a[1] = 255
    b = near(a, 9, 1)
    b[0], b[1] = a[0], 0
    np.testing.assert_allclose(
        metrics.ssim(a, b, window), reference(a, b, window), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("window", WINDOWS)
def test_ssim_needs_one_whole_window(window: Window) -> None:
    side = SIDES[window]
    a = noise(2, 3, side, side + 4, seed=1)
    np.testing.assert_allclose(
        metrics.ssim(a, 255 - a, window), reference(a, 255 - a, window), atol=1e-9
    )
    message = rf"{side - 1}×{side} pixels; SSIM .* {window} .* at least {side}×{side}"
    with pytest.raises(DataError, match=message):
        metrics.ssim(a[:, :, :-1, :side], a[:, :, :-1, :side], window)


@pytest.mark.parametrize("window", WINDOWS)
def test_ssim_does_not_depend_on_neighbours_or_memory_layout(window: Window) -> None:
    a, b = noise(70, 3, 40, 40, seed=1), noise(70, 3, 40, 40, seed=2)
    whole = metrics.ssim(a, b, window)
    alone = torch.cat([metrics.ssim(a[i : i + 1], b[i : i + 1], window) for i in range(70)])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)
    layout = [x.contiguous(memory_format=torch.channels_last) for x in (a, b)]
    torch.testing.assert_close(metrics.ssim(*layout, window), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(metrics.ssim(b, a, window), whole, rtol=0, atol=1e-12)


@given(
    channels=st.integers(1, 4),
    side=st.integers(1, 40),
    spread=st.integers(1, 255),
    seed=st.integers(0, 2**32),
)
def test_psnr_is_that_of_scikit_image(channels: int, side: int, spread: int, seed: int) -> None:
    a = noise(3, channels, side, side + 3, seed=seed)
    b = near(a, spread, seed + 1)
    b[0, 0, 0, 0] = 255 - a[0, 0, 0, 0]  # no pair is equal
    b[1:, 0, 0, 0] = 255 - a[1:, 0, 0, 0]
    expected = [
        peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=255)
        for x, y in zip(a, b, strict=True)
    ]
    found = metrics.psnr(a, b)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_psnr_at_its_ends() -> None:
    black = torch.zeros(1, 3, 600, 600, dtype=torch.uint8)  # squares that overflow 32 bits
    assert metrics.psnr(black, 255 - black).tolist() == [0.0]
    assert metrics.psnr(black, black).tolist() == [math.inf]


@pytest.mark.parametrize("measure", [metrics.ssim, metrics.psnr])
def test_images_that_cannot_be_compared(measure: object) -> None:
    assert callable(measure)
    images = noise(2, 3, 16, 16, seed=1)
    for a, b, message in [
        (images, images.float(), r"float32 2×3×16×16; expected uint8 N×C×H×W"),
        (images[0], images[0], r"uint8 3×16×16; expected uint8 N×C×H×W"),
        (images, images[:1], r"2×3×16×16 and uint8 1×3×16×16; expected equal shapes"),
        (images[:0], images[:0], r"no images to compare"),
    ]:
        with pytest.raises(DataError, match=message):
            measure(a, b)


def test_an_unknown_window_is_named() -> None:
    images = noise(1, 3, 16, 16, seed=1)
    with pytest.raises(DataError, match="window is 'flat'; expected one of uniform7, gaussian11"):
        metrics.ssim(images, images, "flat")  # type: ignore[arg-type]
