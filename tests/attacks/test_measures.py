"""Measures of estimates, against references computed another way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import binomtest
from victims import photos, victims

from fedenc.attacks.measures import (
    LPIPS_WEIGHTS,
    as_picture,
    compare,
    edge_correlation,
    gray,
    interval,
    key_share,
    rank,
    share_interval,
    summarise,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_an_image_is_most_like_itself_and_its_negative_has_the_same_edges() -> None:
    images = photos().images[:20]
    same, negative = compare(images, images), compare(255 - images, images)
    for name in ("ssim_uniform7", "ssim_gaussian11_gray", "edges", "bytes"):
        torch.testing.assert_close(same[name], torch.ones(20, dtype=torch.float64))
    assert (same["psnr"] == 100).all()
    assert (negative["edges"] > 0.98).all()  # luma is rounded
    assert (negative["ssim_gaussian11"] < 0.6).all()
    assert (negative["bytes"] < 0.05).all()


def test_edges_are_those_of_scipy() -> None:
    a, b = noise(5, 3, 9, 8), noise(5, 3, 9, 8, seed=1)
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    maps = []
    for images in (a, b):
        luma = np.round((images.numpy() * weights).sum(1))
        gradient = [[ndimage.sobel(one, axis)[1:-1, 1:-1] for one in luma] for axis in (0, 1)]
        maps.append(np.hypot(*gradient).reshape(5, -1))
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(*maps, strict=True)]
    np.testing.assert_allclose(edge_correlation(a, b), expected, rtol=1e-3, atol=1e-3)
    flat = torch.full((5, 3, 9, 8), 7, dtype=torch.uint8)
    assert (edge_correlation(a, flat) == 0).all()


def test_small_images_have_no_window() -> None:
    assert {"ssim_uniform7", "psnr"} <= compare(noise(2, 3, 8, 8), noise(2, 3, 8, 8)).keys()
    assert "ssim_gaussian11" not in compare(noise(2, 3, 8, 8), noise(2, 3, 8, 8))


def test_the_true_image_ranks_first_and_by_guessing_in_the_middle() -> None:
    plain, others = photos().images[:60], photos().images[400:900]
    assert (rank(plain, plain, others, seed=0) == 1).all()
    assert (rank(255 - plain, plain, others, seed=0) == 1).all()
    guessed = rank(noise(60, 3, 32, 32), plain, others, seed=0)
    assert 35 < guessed.mean() < 66
    flat = torch.full_like(plain, 7)
    assert (rank(flat, plain, others, seed=0) == 50.5).all(), "all are equally unlike"


@given(st.integers(0, 40), st.integers(1, 40))
def test_intervals_of_shares_are_wilsons(hits: int, extra: int) -> None:
    found = share_interval(hits, hits + extra)
    expected = binomtest(hits, hits + extra).proportion_ci(method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


def test_intervals_of_means_cover_the_mean_as_often_as_they_say() -> None:
    samples = torch.randn(2000, 50, generator=torch.Generator().manual_seed(3)) + 4
    covered = [found.low <= 4 <= found.high for found in map(interval, samples)]
    assert 0.92 < np.mean(covered) < 0.97
    assert interval(torch.tensor([3.0])).low == 3
    shares = summarise({"recognised": torch.tensor([1.0, 0, 1, 1])})
    assert shares["recognised"] == 0.75
    assert shares["recognised_high"] < 1


def test_keys_count_by_entry_and_masks_up_to_one_complement() -> None:
    mask = torch.tensor([[0, 255, 255, 0]])
    codes = torch.tensor([[5, 3]])
    unknown = torch.full_like(codes, -1)
    assert key_share([(mask, codes)], [(mask, codes)]) == 1
    assert key_share([(mask, unknown)], [(mask, codes)]) == pytest.approx(4 / 6)
    assert key_share([(255 - mask, codes)], [(mask, codes)]) == pytest.approx(2 / 6)
    assert key_share([(255 - mask, codes)], [(mask, codes)], complement=True) == 1
    assert key_share([], []) == 0


def test_pictures_of_ciphertexts_have_the_plain_shape() -> None:
    plain, planes = photos().images[:4], victims("etc-gray", "image", count=8).uploads.images
    shown = as_picture(planes, (3, 32, 32))
    assert torch.equal(shown[:, 0], planes[:, 0, :32]), "luma"
    assert torch.equal(as_picture(plain, (3, 30, 29)), plain[:, :, :30, :29])
    assert gray(shown).shape == (8, 1, 32, 32)


def test_lpips_is_measured_where_weights_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import alexnet

    images = photos().images[:3]
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "lpips" not in compare(images, images)
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(1)  # what the weights are does not matter here
    torch.save(alexnet(weights=None).state_dict(), tmp_path / "checkpoints" / LPIPS_WEIGHTS)
    assert (compare(images, images)["lpips"] == 0).all()
    noisy = compare(noise(3, 3, 32, 32), images)["lpips"]
    assert noisy.shape == (3,)
    assert (noisy > 0).all()
