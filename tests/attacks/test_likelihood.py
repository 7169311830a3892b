"""Scores of membership against their definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedenc.attacks import likelihood


def test_confidence_is_the_published_one_and_leaves_differences() -> None:
    logits = torch.tensor([[4.0, -1.0, -3.0], [12.0, -4.0, -8.0], [14.0, -6.0, -8.0]]).double()
    labels = torch.tensor([1, 0, 0])
    found = likelihood.confidence(logits.softmax(1).float(), labels)

    def taylor(x: float) -> float:
        return sum(x**n / math.factorial(n) for n in range(5))

    for row, label, score in zip(logits.tolist(), labels.tolist(), found.tolist(), strict=True):
        own = taylor(row[label] / 2 - 0.6)
        others = sum(taylor(c / 2) for i, c in enumerate(row) if i != label)
        assert score == pytest.approx(own / (own + others), rel=1e-4)
    assert abs(found[1] - found[2]) > 0.001


def test_log_odds_do_not_saturate() -> None:
    scores = torch.tensor([[0.0, -50.0, -60.0], [3.0, 1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2])
    odds = likelihood.log_odds(scores.softmax(1).float(), labels)
    assert odds[0].item() == pytest.approx(50.0, abs=1e-3)
    p = scores[1].softmax(0)[2]
    assert odds[1].item() == pytest.approx((p / (1 - p)).log().item(), abs=1e-5)


def test_lira_counts_deviations_from_models_that_did_not_see_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(400, generator=generator, dtype=torch.float64)
    references = centres + 2 * torch.randn(64, 400, generator=generator, dtype=torch.float64)
    scores = likelihood.lira(centres + 6, references)
    assert torch.allclose(scores, torch.full_like(scores, 3), atol=0.6)
    assert scores.mean().item() == pytest.approx(3, abs=0.1)


UNITS = st.lists(st.floats(0.01, 1), min_size=1, max_size=20)


@given(UNITS, UNITS)
def test_rmia_counts_the_images_that_a_candidate_is_ahead_of(
    own: list[float], others: list[float]
) -> None:
    scores = likelihood.rmia(torch.tensor(own), torch.tensor([*others, float("nan")]))
    for score, ratio in zip(scores.tolist(), torch.tensor(own).tolist(), strict=True):
        ahead = sum(ratio / other >= 1 for other in torch.tensor(others).tolist())
        assert ahead <= score * (len(others) + 1) < ahead + 1
    ratios = torch.tensor(own)
    assert torch.equal(scores.argsort(stable=True), ratios.argsort(stable=True))


def test_calibration_finds_how_much_surer_models_are_of_what_they_saw() -> None:
    """Confidences made as offline RMIA assumes them, with a = 0.3: it is found again, roughly."""
    generator = torch.Generator().manual_seed(0)
    hard = torch.rand(4000, generator=generator, dtype=torch.float64)
    unseen = torch.rand(4, 4000, generator=generator) < 0.5
    noise = 0.02 * torch.randn(4, 4000, generator=generator, dtype=torch.float64)
    asked = torch.where(unseen, hard, 0.3 * hard + 0.7) + noise
    assert 0.2 <= likelihood.calibrate(asked, unseen) <= 0.6
