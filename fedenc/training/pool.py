"""The pool of protected images as the loop reads it: resident on the device, one uint8 copy."""

import torch
from torch import Tensor

from fedenc.errors import TrainingError


class Pool:
    """uint8 N×C×H×W images and int64 N labels, gathered by row number on the device."""

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device) -> None:
        self.images = images.to(device)
        self.labels = labels.to(device)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of int64 B rows."""
        return self.images.index_select(0, rows), self.labels.index_select(0, rows)


def check_labels(labels: Tensor, images: int, classes: int, views: int) -> None:
    """TrainingError that lists all that keeps labels and images from being a training set."""
    problems = []
    if labels.dtype != torch.int64 or tuple(labels.shape) != (images,):
        problems.append(
            f"labels are {str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}; "
            f"expected int64 [{images}], one an image"
        )
    elif images:
        low, high = (int(value) for value in torch.aminmax(labels))
        if low < 0 or high >= classes:
            problems.append(f"labels run from {low} to {high}; the model has 0..{classes - 1}")
    if views < 1 or images % views:
        problems.append(f"views is {views}; expected a divisor of the {images} images, at least 1")
    elif images < 2 * views:
        problems.append(f"there are {images // views} images; expected at least 2")
    if problems:
        raise TrainingError(f"training set: {'; '.join(problems)}")
