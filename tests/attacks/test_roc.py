"""Figures of scores against their definitions, pair by pair and threshold by threshold."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedenc.attacks import roc
from fedenc.errors import AttackError

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=40)  # few values: many ties


def normal(count: int, mean: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator, dtype=torch.float64) + mean


def both(members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    truth = torch.cat((torch.ones(len(members)), torch.zeros(len(others)))) > 0
    return torch.cat((members, others)), truth


@given(SCORES, SCORES)
def test_the_area_is_the_share_of_pairs_in_order(members: list[int], others: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in members for b in others]
    expected = sum(pairs) / len(pairs)
    assert roc.auc(torch.tensor(members), torch.tensor(others)) == pytest.approx(expected)


@given(SCORES, SCORES, st.sampled_from([0.01, 0.1, 0.25, 0.5]))
def test_the_rate_is_that_of_the_best_threshold(
    members: list[int], others: list[int], fpr: float
) -> None:
    found = roc.tpr_at(torch.tensor(members), torch.tensor(others), fpr)
    if len(others) * fpr < 1:
        assert found is None
        return
    allowed = [
        sum(score > threshold for score in members) / len(members)
        for threshold in range(-6, 7)
        if sum(score > threshold for score in others) <= fpr * len(others)
    ]
    assert found == pytest.approx(max(allowed))


def test_perfect_random_and_tied_scores() -> None:
    scores, truth = both(normal(500) + 100, normal(1000, seed=1))
    perfect = roc.measure(scores, truth)
    assert perfect == roc.Roc(*[roc.Rate(1, 1, 1)] * 3)
    reverse = roc.measure(-scores, truth)
    assert reverse == roc.Roc(*[roc.Rate(0, 0, 0)] * 3)
    chance = roc.measure(*both(normal(500), normal(1000, seed=1)))
    assert chance.auc.low < 0.5 < chance.auc.high
    assert chance.tpr_1 is not None
    assert chance.tpr_1.high < 0.04
    tied = roc.measure(torch.zeros(1500), truth)
    assert tied == roc.Roc(roc.Rate(0.5, 0.5, 0.5), roc.Rate(0, 0, 0), roc.Rate(0, 0, 0))


def test_intervals_are_of_the_theory_s_width() -> None:
    """For two equal distributions the area's deviation is √((P + Q + 1) / (12 P Q))."""
    found = roc.measure(*both(normal(400), normal(300, seed=1))).auc
    deviation = ((400 + 300 + 1) / (12 * 400 * 300)) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    assert found.low < found.value < found.high


def test_no_rate_that_the_others_are_too_few_for() -> None:
    few, some = (roc.measure(*both(normal(50), normal(n))) for n in (99, 999))
    assert few.tpr_1 is None
    assert few.tpr_01 is None
    assert some.tpr_1 is not None
    assert some.tpr_01 is None


@pytest.mark.parametrize(
    ("scores", "members", "message"),
    [
        ([1.0, 2.0], [True, True], "2 members and 0 others"),
        ([1.0, float("nan")], [True, False], "1 of 2 scores are not numbers"),
    ],
)
def test_what_cannot_be_measured(scores: list[float], members: list[bool], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        roc.measure(torch.tensor(scores), torch.tensor(members))
