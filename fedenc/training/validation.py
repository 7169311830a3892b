"""Images held out of a training: a stratified split, and the loss on them."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from fedenc import seeding
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training.precision import autocast
from fedenc.training.training_set import Batch


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
    model: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    *,
    precision: str,
    device: torch.device,
) -> float:
    """Mean cross-entropy in nats over batches of uint8 B×C×H×W images and int64 B labels, plus what
    a network itself adds to the loss that it is trained with (``Network.penalty``).

    ``model`` maps images to logits, and is in evaluation mode.
    """
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    with autocast(precision, device):
        for images, labels in batches:
            logits = model(images.contiguous(memory_format=torch.channels_last)).float()
            total += F.cross_entropy(logits, labels, reduction="sum")
            penalty = model.penalty() if isinstance(model, Network) else None
            if penalty is not None:
                total += penalty * len(labels)
            count += len(labels)
    return total.item() / count
