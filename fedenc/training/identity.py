"""What makes a run this run, so that a checkpoint of another is refused with the difference."""

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedenc.errors import TrainingError
from fedenc.training.training_set import TrainingSet

_SAMPLED = 512  # images: enough to tell training sets apart at the cost of a few milliseconds


def of_data(training_set: TrainingSet, seed: int) -> dict[str, Any]:
    """Seed and training set, the latter by digest, as JSON values.

    Of a large set, evenly spaced images are digested.
    """
    images = training_set.images
    return {
        "seed": seed,
        "views": training_set.views,
        "images": len(images),
        "pixels": digest(images[:: max(1, len(images) // _SAMPLED)]),
        "labels": digest(training_set.labels),
    }


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Everything in which ``expected`` is not what was found, for people; empty if nothing is."""
    return "; ".join(
        f"{key} was {found.get(key)!r} and is {value!r}"
        for key, value in expected.items()
        if found.get(key) != value
    )


def require_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """TrainingError naming everything in which a checkpoint's run differs from this one."""
    if different := differences(found, expected):
        raise TrainingError(
            f"checkpoint belongs to another run: {different}; "
            "restore those, or start without the checkpoint"
        )


def digest(values: Tensor) -> str:
    """The first 64 bits of a tensor's SHA-256, in hexadecimal."""
    return hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
