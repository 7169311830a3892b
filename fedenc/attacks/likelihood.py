"""How much more likely a model's answer is of an image that it was trained on than of another one.

The scores of RMIA (Zarifzadeh, Liu & Shokri, "Low-cost high-power membership inference attacks",
ICML 2024) and of LiRA (Carlini et al., "Membership inference attacks from first principles", IEEE
S&P 2022), both offline: no reference model saw an image in question.
"""

import torch
from torch import Tensor

from fedenc.attacks import roc

MARGIN, TEMPERATURE = 0.6, 2.0  # of the Taylor softmax, as published
LEAST_FLOAT = 1e-45  # of 32 bits
GRID = 11  # values of a that are tried, 0 to 1


def confidence(probabilities: Tensor, labels: Tensor) -> Tensor:
    """A model's soft-margin Taylor softmax of the label (Zarifzadeh et al. 2024).

    The exponential function makes a model certain of nearly everything that it was trained on; a
    polynomial in its place leaves differences. Logits are taken from probabilities, with mean 0,
    as cross-entropy leaves it.

    Args:
        probabilities: float (N, classes), softmax.
        labels: int64 (N,).

    Returns:
        float64 (N,), 0 to 1.
    """
    logits = _positive(probabilities).log()
    logits = (logits - logits.mean(1, keepdim=True)) / TEMPERATURE
    own = _taylor(logits.gather(1, labels[:, None]).squeeze(1) - MARGIN)
    others = _taylor(logits).scatter(1, labels[:, None], 0).sum(1)
    return own / (own + others)


def _taylor(x: Tensor) -> Tensor:
    """exp(x) to the fourth order, which is positive everywhere."""
    return 1 + x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4)))


def _positive(probabilities: Tensor) -> Tensor:
    return probabilities.double().clamp_min(LEAST_FLOAT)


def log_odds(probabilities: Tensor, labels: Tensor) -> Tensor:
    """``log(p / (1 − p))`` of the label's probability p, which is nearly normal over models
    (Carlini et al. 2022, "logit scaling"): float (N, classes) and int64 (N,) to float64 (N,)."""
    probabilities = _positive(probabilities)
    others = probabilities.scatter(1, labels[:, None], 0).sum(1)  # 1 − p, without cancellation
    return (probabilities.gather(1, labels[:, None]).squeeze(1) / others).log()


def lira(victim: Tensor, references: Tensor) -> Tensor:
    """Offline LiRA (Carlini et al. 2022): how far the attacked model is above the normal
    distribution of those that did not see the image, in deviations.

    Few models give a poor estimate of an image's own variance; as the paper advises, one is used
    for all images. The published score is the normal distribution function of this one.

    Args:
        victim: float64 (N,), log odds.
        references: float64 (R, N), R at least 2.

    Returns:
        float64 (N,).
    """
    deviation = references.var(0).mean().sqrt().clamp_min(1e-12)
    return (victim - references.mean(0)) / deviation


def ratio(victim: Tensor, references: Tensor, unseen: Tensor, a: float) -> Tensor:
    """Pr(x|θ) / Pr(x) of every image x (Zarifzadeh et al. 2024).

    Pr(x) is a mean over models that saw x and models that did not. Only the latter are there, and
    the former are taken to be at ``a`` p + 1 − a where the latter are at p: offline RMIA.

    Args:
        victim: float64 (N,), confidences.
        references: float64 (R, N).
        unseen: bool (R, N): the model was not trained on the image.
        a: 0 (who saw it is certain) to 1 (who saw it is no surer).

    Returns:
        float64 (N,); NaN for images that every model saw.
    """
    mean = (references * unseen).sum(0) / unseen.sum(0)
    return victim / (((1 + a) * mean + 1 - a) / 2).clamp_min(LEAST_FLOAT)


def calibrate(references: Tensor, unseen: Tensor) -> float:
    """The ``a`` that tells best what each reference model was trained on, by asking the others.

    Args:
        references: float64 (R, N), confidences.
        unseen: bool (R, N): the model was not trained on the image.
    """

    def success(a: float) -> float:
        found = []
        for number in range(len(references)):
            rest = torch.arange(len(references)) != number
            scores = ratio(references[number], references[rest], unseen[rest], a)
            outside, known = unseen[number], ~scores.isnan()
            found.append(roc.auc(scores[~outside & known], scores[outside & known]))
        return sum(found)

    return max((step / (GRID - 1) for step in range(GRID)), key=success)


def rmia(candidates: Tensor, population: Tensor) -> Tensor:
    """The share of other images that a candidate's ratio is not below (Zarifzadeh et al. 2024,
    with γ = 1). Among candidates of equal share the ratio decides.

    Args:
        candidates: float64 (N,), ratios.
        population: float64 (Z,), ratios of images that the model was not trained on, or NaN.

    Returns:
        float64 (N,), 0 to 1.
    """
    others = population[~population.isnan()].sort().values
    below = torch.searchsorted(others, candidates, right=True)
    return (below + candidates / (1 + candidates)) / (len(others) + 1)
