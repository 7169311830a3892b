"""CIFAR-10, CIFAR-100 and STL-10 in their authors' formats, read and fetched by torchvision."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedenc.data.cache import Batch, Decoded, Part, Source
from fedenc.errors import DataError
from fedenc.files import locked

# name -> (torchvision's class, the folder its archive unpacks to)
_SETS = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "stl10": ("STL10", "stl10_binary"),
}
_BATCH = 512


def source(name: str, root: Path, size: int | None, *, download: bool) -> Source:
    """``name`` from torchvision's folder under ``root``; fetched first if asked to and missing.

    torchvision checks every file's MD5 when the set is decoded (not when the cache is valid).

    Raises:
        DataError: the files are missing and may not be, or cannot be, downloaded.
    """
    folder = root / _SETS[name][1]
    if download:
        _download(name, root)
    elif not folder.is_dir():
        raise DataError(
            f"{name} is not in {root}: found neither Parquet files (train-*.parquet, "
            f"test-*.parquet) nor torchvision's {folder.name}; point data.root at a folder "
            "that has them, or download it with data.download=true"
        )
    files = tuple(sorted(file for file in folder.rglob("*") if file.is_file()))
    return Source(
        name,
        files,
        {"layout": "torchvision", "size": size},
        lambda: _decode(name, root, size),
    )


def _open(name: str, root: Path, split: str, *, download: bool) -> Any:
    from torchvision import datasets

    kind = _SETS[name][0]
    which = {"split": split} if kind == "STL10" else {"train": split == "train"}
    return getattr(datasets, kind)(root, **which, download=download)


def _download(name: str, root: Path) -> None:
    folder, lock = root / _SETS[name][1], root / f".{name}.lock"
    if folder.is_dir() and not lock.exists():  # put there by somebody else
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(lock):  # many processes may ask at once, and see a half-unpacked folder
            if not folder.is_dir():
                _open(name, root, "test", download=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        raise DataError(
            f"cannot download {name} to {root}: {error}; try again later, or put Parquet files or "
            "torchvision's folder there by hand"
        ) from error


def _decode(name: str, root: Path, size: int | None) -> Decoded:
    try:
        train, test = (_open(name, root, split, download=False) for split in ("train", "test"))
    except (OSError, RuntimeError, ValueError, EOFError, tarfile.TarError) as error:
        folder = root / _SETS[name][1]
        raise DataError(
            f"{folder} is incomplete or damaged: {error}; expected torchvision's unpacked {name}: "
            "delete the folder and load again with data.download=true"
        ) from error
    known = getattr(train, "classes", None)
    labels = _labels(train)
    classes = tuple(known or map(str, range(int(labels.max()) + 1)))
    return Decoded(classes, _part(train.data, labels, size), _part(test.data, _labels(test), size))


def _labels(dataset: Any) -> NDArray[np.int64]:
    """CIFAR keeps a list in ``targets``, STL-10 an array in ``labels``."""
    found = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return np.asarray(found, dtype=np.int64)


def _part(images: NDArray[np.uint8], labels: NDArray[np.int64], size: int | None) -> Part:
    """From torchvision's array: uint8, (N, H, W, 3) in CIFAR and (N, 3, H, W) in STL-10."""
    channels_last = images if images.shape[-1] == 3 else images.transpose(0, 2, 3, 1)

    def batches() -> Iterator[Batch]:
        from PIL import Image

        from fedenc.images.decode import to_array

        for start in range(0, len(labels), _BATCH):
            batch = channels_last[start : start + _BATCH]
            if size is not None and batch.shape[1:3] != (size, size):
                batch = np.stack([to_array(Image.fromarray(image), size) for image in batch])
            yield batch.transpose(0, 3, 1, 2), labels[start : start + _BATCH]

    return Part(len(labels), batches())
