"""Whose images are whose, where a third party and participants share one data set."""

import numpy as np
import numpy.typing as npt
import torch

from fedenc.training import validation

Indices = npt.NDArray[np.int64]


def third_party(
    labels: npt.NDArray[np.int64], fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Indices of the third party's images and of all others, both ascending.

    The third party gets ``fraction`` (above 0, at most 1) of each class. A function of its
    arguments alone, so that whoever knows them can keep clear of its images.
    """
    if fraction >= 1:
        return np.arange(len(labels)), np.empty(0, np.int64)
    rest, share = validation.split(torch.from_numpy(np.array(labels)), fraction, seed)
    assert share is not None
    return share.numpy(), rest.numpy()
