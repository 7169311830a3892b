"""Held-out images that choose the weights: a stratified split and the best state so far."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc import seeding
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training.pool import Pool
from fedenc.training.precision import autocast


def split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor | None]:
    """Numbers of the images to train on and to hold out (None: nothing), int64, both ascending.

    ``labels`` is int64 N, one an image. Of each class the nearest whole number to ``fraction`` of
    its images is held out, but never all of them. TrainingError if that is none at all.
    """
    if fraction == 0:
        return torch.arange(len(labels)), None
    shuffled = torch.randperm(len(labels), generator=seeding.generator(seed, "validation"))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.bincount(labels)
    held = torch.minimum((counts * fraction).round().long(), (counts - 1).clamp_min(0))
    starts = counts.cumsum(0) - counts
    ranks = torch.arange(len(labels)) - starts.repeat_interleave(counts)
    out = ranks < held.repeat_interleave(counts)
    if not out.any():
        raise TrainingError(
            f"validation is {fraction}, which holds out none of {len(labels)} images; "
            "raise it, or set it to 0"
        )
    return by_class[~out].sort().values, by_class[out].sort().values


@torch.no_grad()
def mean_loss(
    model: nn.Module, pool: Pool, rows: Tensor, precision: str, batch_size: int = 512
) -> float:
    """Mean cross-entropy in nats of int64 ``rows`` of the pool, in evaluation mode, plus what the
    model itself adds to the loss that it is trained with (``Network.penalty``)."""
    training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=pool.device)
    with autocast(precision, pool.device):
        for images, labels in pool.batches(torch.split(rows, batch_size)):
            logits = model(images.contiguous(memory_format=torch.channels_last)).float()
            total += F.cross_entropy(logits, labels, reduction="sum")
            penalty = model.penalty() if isinstance(model, Network) else None
            if penalty is not None:
                total += penalty * len(labels)
    model.train(training)
    return total.item() / len(rows)
