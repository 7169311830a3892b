"""Whose images are whose, where a third party and participants share one data set."""

import hashlib

import numpy as np
import numpy.typing as npt
import torch

from fedenc.errors import DataError, TrainingError
from fedenc.training import validation

Indices = npt.NDArray[np.int64]


def third_party(
    labels: npt.NDArray[np.int64], fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Indices of the third party's images and of all others, both ascending.

    The third party gets ``fraction`` (above 0, at most 1) of each class. A function of its
    arguments alone, so that whoever knows them can keep clear of its images.

    Raises:
        DataError: a fraction so small that no image falls to it.
    """
    if fraction >= 1:
        return np.arange(len(labels)), np.empty(0, np.int64)
    try:
        rest, share = validation.split(torch.from_numpy(np.array(labels)), fraction, seed)
    except TrainingError:
        raise DataError(
            f"transformation.fraction = {fraction} of {len(labels)} training images leaves the "
            "third party none; raise it"
        ) from None
    assert share is not None
    return share.numpy(), rest.numpy()


def labels_digest(labels: npt.NDArray[np.int64]) -> str:
    """SHA-256 of a data set's labels in their order: tells sets of one name apart."""
    return hashlib.sha256(np.asarray(labels, "<i8").tobytes()).hexdigest()
