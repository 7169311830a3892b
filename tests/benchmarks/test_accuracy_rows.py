"""What owners of the accuracy benchmark upload."""

import numpy as np
import torch

from benchmarks.accuracy.rows import VIEWS, Row, training_set
from fedenc.data import Split


def _uploaded(kind: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    images = np.random.Generator(np.random.Philox(0)).integers(0, 256, (5, 3, 32, 32), np.uint8)
    row = Row("plain", "raw", "plain", 0)
    return training_set(row, Split(images, np.arange(5)), None, kind)


def test_random_copies_are_views() -> None:
    images, labels, views = _uploaded("crop-flip")
    assert (len(images), views) == (5 * VIEWS, VIEWS)
    assert labels.tolist() == np.repeat(np.arange(5), VIEWS).tolist()


def test_an_epoch_sees_every_copy_of_an_exhaustive_set() -> None:
    images, labels, views = _uploaded("flip-all")
    assert (len(images), views) == (10, 1)
    assert labels.tolist() == np.repeat(np.arange(5), 2).tolist()
    assert torch.equal(images[1::2], images[::2].flip(-1))
    assert not torch.equal(images[1::2], images[::2])
