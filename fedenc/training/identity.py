"""What makes a run this run, so that a checkpoint of another is refused with the difference."""

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedenc.errors import TrainingError
from fedenc.models.network import Architecture
from fedenc.training.config import TrainingConfig

_SAMPLED = 512  # images: enough to tell pools apart at the cost of a few milliseconds


def describe(
    architecture: Architecture,
    config: TrainingConfig,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    views: int,
) -> dict[str, Any]:
    """The run as JSON values: model, seed, data by digest, and every field of the configuration.

    Of a large pool, evenly spaced images are digested.
    """
    sample = images[:: max(1, len(images) // _SAMPLED)]
    a = architecture
    return {
        "model": f"{a.name}, {a.channels} channels, {a.classes} classes, {a.size[0]}×{a.size[1]}, "
        f"input {a.input}, adapter {a.adapter}",
        "seed": seed,
        "views": views,
        "images": len(images),
        "pixels": digest(sample),
        "labels": digest(labels),
        **{f"training.{key}": value for key, value in config.as_dict().items()},
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
