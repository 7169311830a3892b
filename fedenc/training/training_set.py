"""Labelled images as a run reads them, by row number in batches on the device.

A training set that fits lives on the device, as the only copy there, and a batch is one gather. A
larger one stays in the host's memory: a thread gathers the next batch into a page-locked buffer
while the device works on this one, and the copy to the device is asynchronous.
"""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from fedenc.errors import TrainingError

RESIDENT_SHARE = 0.6  # of the device's free memory; the rest is for model and activations
_AHEAD = 2  # batches gathered ahead of the one that is being trained on

Batch = tuple[Tensor, Tensor]  # images and labels


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """uint8 N×C×H×W images and int64 N labels, both on one device.

    Rows come sorted by image, then view: image m owns rows m·views to m·views + views − 1.
    """

    images: Tensor
    labels: Tensor
    views: int = 1

    def placed(self, device: torch.device) -> "TrainingSet":
        """The same on ``device``, or on the host if it does not fit there."""
        images = place(self.images, device)
        return TrainingSet(images, self.labels.to(images.device), self.views)

    def batches(self, rows: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """Images and labels, on ``device``, of each int64 tensor of rows (where the images are)."""
        if self.images.device.type != device.type:
            return stream(self, rows, device)
        return ((self.images.index_select(0, r), self.labels.index_select(0, r)) for r in rows)


def stream(source: TrainingSet, rows: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
    """As ``TrainingSet.batches``, from the host's memory to another device."""
    buffers = [_Buffer(source, pinned=device.type == "cuda") for _ in range(_AHEAD + 1)]
    waiting: list[tuple[_Buffer, Future[Batch]]] = []

    def send(buffer: "_Buffer", gathered: "Future[Batch]") -> Batch:
        images, labels = (t.to(device, non_blocking=True) for t in gathered.result())
        buffer.sent()
        return images, labels

    with ThreadPoolExecutor(1) as thread:
        for number, part in enumerate(rows):
            buffer = buffers[number % len(buffers)]
            waiting.append((buffer, thread.submit(buffer.gather, part)))
            if len(waiting) > _AHEAD:
                yield send(*waiting.pop(0))
        while waiting:
            yield send(*waiting.pop(0))


class _Buffer:
    """Host memory for one batch, not overwritten before the device has read it."""

    def __init__(self, source: TrainingSet, *, pinned: bool) -> None:
        self.source = (source.images, source.labels)
        self.pinned = pinned
        self.memory: list[Tensor] = []
        self.event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]

    def gather(self, rows: Tensor) -> Batch:
        if self.event is not None:
            self.event.synchronize()
        if not self.pinned:  # without a copy to come, memory that is used again would be shared
            return self.source[0].index_select(0, rows), self.source[1].index_select(0, rows)
        if not self.memory or len(self.memory[0]) < len(rows):
            self.memory = [
                torch.empty((len(rows), *t.shape[1:]), dtype=t.dtype, pin_memory=True)
                for t in self.source
            ]
        out = [memory[: len(rows)] for memory in self.memory]
        for source, target in zip(self.source, out, strict=True):
            torch.index_select(source, 0, rows, out=target)
        return out[0], out[1]

    def sent(self) -> None:
        if self.event is not None:
            self.event.record()


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether a training set of so many bytes leaves the device room for training."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return nbytes <= RESIDENT_SHARE * free


def place(images: Tensor, device: torch.device) -> Tensor:
    """Images on the device if they are there or fit, else on the host."""
    there = images.device.type == device.type or fits(images.nbytes, device)
    return images.to(device if there else "cpu")


def room(rows: int, shape: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Memory for a training set, uint8 rows×C×H×W images and int64 (rows,) labels, not filled yet:
    on the device if it fits there, else on the host, from where batches are streamed."""
    home = device if fits(rows * math.prod(shape), device) else torch.device("cpu")
    images = torch.empty((rows, *shape), dtype=torch.uint8, device=home)
    return images, torch.empty(rows, dtype=torch.int64, device=home)


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
