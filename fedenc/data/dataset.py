"""What a loaded data set is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in a fixed order; both arrays are read-only.

    ``images`` is uint8 (N, C=3, H, W) in RGB order, usually memory-mapped from the cache, so that
    processes on one machine share its pages; ``labels`` is int64 (N,) in ``0..classes-1``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split over the same classes; ``classes[label]`` is a label's name."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train.images.shape[1:]
        return int(channels), int(height), int(width)
