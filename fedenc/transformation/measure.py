"""What a transformation network keeps for the classifier, and what it leaves to see."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedenc.errors import TransformationError
from fedenc.images import metrics
from fedenc.models.network import Network
from fedenc.training.precision import autocast, resolve
from fedenc.transformation.bundle import Transformation

_CHUNK = 512  # images worked on at once
_LEVEL = 1.0  # grey level of 255: outputs that vary less from image to image are all the same

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Answers:
    """What classifiers say to N images, int64 N each, and what those images look like."""

    plain: Tensor
    protected: Tensor
    unrounded: Tensor  # to outputs that were not rounded to 8 bits
    foreign: Tensor | None  # another classifier, to protected images
    foreign_plain: Tensor | None
    images: Tensor  # the protected ones, uint8 N×3×H×W
    lowest: float  # of all unrounded outputs
    highest: float


def measure(
    transformation: Transformation,
    psi: Network,
    images: Tensor,
    labels: Tensor,
    *,
    foreign: Network | None = None,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Measure a bundle on images that nothing in it was trained on.

    Args:
        images: plain, uint8 N×3×H×W.
        labels: int64 N.
        foreign: a classifier that never met the network.
        device: where to compute; the arguments stay where they are.

    Returns:
        JSON values. Accuracies, 0 to 1: ``plain_accuracy`` and ``protected_accuracy`` of ψ,
        ``unrounded_accuracy`` of ψ before outputs are rounded to 8 bits, ``foreign_accuracy`` and
        ``foreign_plain_accuracy`` of the other classifier (None without one). Means over the
        images, against the plain ones: ``ssim_uniform7``, ``ssim_gaussian11``, ``psnr`` in dB (None
        if infinite). ``output_lowest`` and ``output_highest``, 0 to 1. ``collapse``: see
        ``collapse``. ``precision`` in which classifiers were asked: fp32 or bf16. ``images``: N.

    Raises:
        TransformationError: images or labels that do not fit.
        DataError: images smaller than the windows of SSIM.
    """
    answers = ask(transformation, psi, images, labels, foreign=foreign, device=device)
    plain = _accuracy(answers.plain, labels)
    reference = plain
    if transformation.method == "gan":  # its ψ knows protected images only
        reference = transformation.info["validation"]["plain_accuracy"]
    similarity = {
        f"ssim_{window}": metrics.ssim(images, answers.images, window).mean().item()
        for window in ("uniform7", "gaussian11")
    }
    noise = metrics.psnr(images, answers.images).mean().item()
    return {
        "images": len(images),
        "precision": resolve("auto", device),
        "plain_accuracy": plain,
        "protected_accuracy": _accuracy(answers.protected, labels),
        "unrounded_accuracy": _accuracy(answers.unrounded, labels),
        "foreign_accuracy": _of_foreign(answers.foreign, labels),
        "foreign_plain_accuracy": _of_foreign(answers.foreign_plain, labels),
        **similarity,
        "psnr": noise if math.isfinite(noise) else None,
        "output_lowest": answers.lowest,
        "output_highest": answers.highest,
        "collapse": collapse(answers, labels, reference),
    }


def collapse(answers: Answers, labels: Tensor, reference: float) -> dict[str, Any]:
    """Whether training ended where nothing of the images is left, as with the paper's α = 0.1.

    Our rule: it did if outputs vary by less than one grey level from image to image, or if
    protected images lose more than half of the lead that plain ones have over naming the most
    frequent class. The published accuracies of 68.91 % count as sound by it, 44.30 % and less as
    collapsed.

    Args:
        reference: accuracy on plain images, of a classifier trained on such.

    Returns:
        ``collapsed`` and its ``reason`` (None if not); ``plain_accuracy`` (the reference),
        ``protected_accuracy``, ``chance`` (share of the most frequent label),
        ``most_frequent_share`` (of protected images that get the same answer), and ``deviation``
        (grey levels: standard deviation over the images, mean over pixels and channels).
    """
    count = len(labels)
    protected = _accuracy(answers.protected, labels)
    chance = torch.bincount(labels).max().item() / count
    deviation = _deviation(answers.images)
    reason = None
    if deviation < _LEVEL:
        reason = (
            f"protected images differ by {deviation:.2g} grey levels, less than {_LEVEL:g}: they "
            "are all the same"
        )
    elif protected - chance < (reference - chance) / 2:
        reason = (
            f"accuracy on protected images is {protected:.1%}, which loses more than half of what "
            f"plain images have ({reference:.1%}) over naming one class ({chance:.1%})"
        )
    return {
        "collapsed": reason is not None,
        "reason": reason,
        "plain_accuracy": reference,
        "protected_accuracy": protected,
        "chance": chance,
        "most_frequent_share": torch.bincount(answers.protected).max().item() / count,
        "deviation": deviation,
    }


@torch.no_grad()
def ask(
    transformation: Transformation,
    psi: Network,
    images: Tensor,
    labels: Tensor,
    *,
    foreign: Network | None = None,
    device: torch.device = CPU,
) -> Answers:
    """Protect images and have them classified, as the provider does; see ``measure``."""
    if labels.shape != (len(images),) or not len(images):
        raise TransformationError(
            f"there are {len(images)} images and labels of shape {list(labels.shape)}; expected at "
            "least one image, and one label for each"
        )
    h = transformation.to(device)
    models = [_placed(psi, device)] + ([] if foreign is None else [_placed(foreign, device)])
    found: list[list[Tensor]] = [[] for _ in range(5)]
    protected, bounds = [], []
    for part in torch.split(images, _CHUNK):
        x = part.to(device)
        outputs = h.transform(x)
        y = (255 * outputs).round().to(torch.uint8)
        asked = [(models[0], x), (models[0], y), (models[0], 255 * outputs)]
        asked += [(model, z) for model in models[1:] for z in (y, x)]
        for answers, (model, z) in zip(found, asked, strict=False):
            answers.append(_classes(model, z))
        protected.append(y.cpu())
        bounds.append(torch.stack(torch.aminmax(outputs)).cpu())
    plain, rounded, unrounded, other, other_plain = (torch.cat(a) if a else None for a in found)
    assert plain is not None
    assert rounded is not None
    assert unrounded is not None
    lowest, highest = torch.stack(bounds).unbind(1)
    return Answers(
        plain,
        rounded,
        unrounded,
        other,
        other_plain,
        torch.cat(protected),
        lowest.min().item(),
        highest.max().item(),
    )


def _placed(model: Network, device: torch.device) -> Network:
    placed: Network = copy.deepcopy(model).to(device)
    return placed.eval()


def _classes(model: nn.Module, images: Tensor) -> Tensor:
    """The most likely class of uint8 or float N×C×H×W in 0..255: int64 N on the CPU."""
    with autocast("auto", images.device):
        logits: Tensor = model(images.contiguous(memory_format=torch.channels_last))
    return logits.float().argmax(dim=1).cpu()


def _accuracy(answers: Tensor, labels: Tensor) -> float:
    return (answers == labels).double().mean().item()


def _of_foreign(answers: Tensor | None, labels: Tensor) -> float | None:
    return None if answers is None else _accuracy(answers, labels)


def _deviation(images: Tensor) -> float:
    """Grey levels: standard deviation over uint8 N×C×H×W, mean over what is left."""
    total = torch.zeros(images.shape[1:], dtype=torch.int64)
    squares = torch.zeros_like(total)
    for part in torch.split(images, _CHUNK):
        values = part.int()
        total += values.sum(0)
        squares += values.square().sum(0)
    mean = total.double() / len(images)
    return (squares.double() / len(images) - mean**2).clamp_min(0).sqrt().mean().item()
