"""How well scores tell members from others: area under the ROC curve, true positives at few false
ones.

Carlini et al. (IEEE S&P 2022) argue that an attack on membership is measured by its true-positive
rate at a low false-positive rate: the area under the curve hides whether anybody is found for
certain.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedenc import seeding
from fedenc.errors import AttackError

RESAMPLES = 1000
_CHUNK = 100  # resamples computed at once


@dataclass(frozen=True)
class Rate:
    """An estimate and its 95 % interval, all 0 to 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Roc:
    """Figures of one attack on membership.

    Attributes:
        auc: probability that a member scores higher than another image; ties count half.
        tpr_1: share of members found where at most 1 % of the others are taken for one; None where
            there are fewer than 100 others.
        tpr_01: the same at 0.1 %; None where there are fewer than 1,000 others.
    """

    auc: Rate
    tpr_1: Rate | None
    tpr_01: Rate | None


def measure(scores: Tensor, members: Tensor, seed: int = 0) -> Roc:
    """Score an attack.

    The intervals are percentiles of a bootstrap, over members and others apart.

    Args:
        scores: float (K,), the higher, the more likely a member.
        members: bool (K,), the truth.
        seed: of the bootstrap.

    Raises:
        AttackError: there are no members, no others, or scores that are not numbers.
    """
    if scores.isnan().any():
        raise AttackError(f"{int(scores.isnan().sum())} of {len(scores)} scores are not numbers")
    own, others = scores[members].double(), scores[~members].double()
    if not len(own) or not len(others):
        raise AttackError(
            f"there are {len(own)} members and {len(others)} others; expected some of each"
        )
    drawn: dict[str, list[Tensor]] = {"auc": [], "0.01": [], "0.001": []}
    generator = seeding.generator(seed, "bootstrap")
    for _ in range(RESAMPLES // _CHUNK):
        a = own[torch.randint(len(own), (_CHUNK, len(own)), generator=generator)]
        b = others[torch.randint(len(others), (_CHUNK, len(others)), generator=generator)]
        b = b.sort(dim=1).values
        drawn["auc"].append(_auc(a, b))
        for rate in (0.01, 0.001):
            drawn[str(rate)].append(_tpr(a, b, rate))
    others = others.sort().values
    return Roc(
        _rate(_auc(own, others), drawn["auc"]),
        *(
            _rate(_tpr(own, others, rate), drawn[str(rate)]) if len(others) * rate >= 1 else None
            for rate in (0.01, 0.001)
        ),
    )


def auc(members: Tensor, others: Tensor) -> float:
    """Area under the ROC curve of scores float (P,) and float (Q,), by ranks (Mann–Whitney)."""
    return _auc(members.double(), others.double().sort().values).item()


def tpr_at(members: Tensor, others: Tensor, fpr: float) -> float | None:
    """Share of members, float (P,), above a threshold that at most a share ``fpr`` of the others,
    float (Q,), is above; None where that is less than one of them."""
    if len(others) * fpr < 1:
        return None
    return _tpr(members.double(), others.double().sort().values, fpr).item()


def _auc(members: Tensor, others: Tensor) -> Tensor:
    """(..., P) and (..., Q) in ascending order to (...)."""
    members = members.contiguous()
    below = torch.searchsorted(others, members) + torch.searchsorted(others, members, right=True)
    return below.double().mean(-1) / (2 * others.shape[-1])


def _tpr(members: Tensor, others: Tensor, fpr: float) -> Tensor:
    """(..., P) and (..., Q) in ascending order to (...)."""
    allowed = math.floor(others.shape[-1] * fpr + 1e-9)  # 0.01 · 300 is a bit less than 3
    threshold = others[..., -1 - allowed].unsqueeze(-1)
    return (members > threshold).double().mean(-1)


def _rate(value: Tensor, drawn: list[Tensor]) -> Rate:
    low, high = torch.quantile(torch.cat(drawn), torch.tensor([0.025, 0.975]).double()).tolist()
    return Rate(value.item(), low, high)
