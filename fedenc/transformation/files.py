"""Protect image files with the shared transformation network, as a participant does."""

from __future__ import annotations

from pathlib import Path

import torch

from fedenc.ciphers.files.encryption import with_suffix
from fedenc.errors import DataError, FedencError, TransformationError
from fedenc.files import FileSummary
from fedenc.images import lossless
from fedenc.transformation.bundle import Transformation

_TOGETHER = 256  # files held in memory at a time


def protect(network: Transformation, source: Path, target: Path) -> FileSummary:
    """Write a protected PNG for every image file.

    Args:
        network: takes images of one size only; they are not resized.
        source: a PNG, WebP, BMP or JPEG file, or a folder, searched with all its folders.
        target: a folder that does not exist or is empty; ``a.png`` keeps its name, and
            ``a.bmp`` becomes ``a.bmp.png``.

    Raises:
        DataError: no image file in ``source``, or ``target`` is in use.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise DataError(f"{target} is in use; name a new folder for the protected images")
    root = source if source.is_dir() else source.parent
    found = sorted(root.rglob("*")) if source.is_dir() else [source]
    files = [path for path in found if path.suffix.lower() in lossless.READABLE]
    names = with_suffix([str(path.relative_to(root)) for path in files], ".png")
    if not files:
        raise DataError(
            f"there is no image file in {source}; expected {', '.join(lossless.READABLE)}"
        )
    written, failures = 0, []
    for start in range(0, len(files), _TOGETHER):
        read = []
        part = slice(start, start + _TOGETHER)
        for path, name in zip(files[part], names[part], strict=True):
            try:
                read.append((name, _fitting(network, path)))
            except FedencError as error:
                failures.append((str(path), str(error)))
        if not read:
            continue
        protected = network.protect(torch.stack([image for _, image in read]))
        for (name, _), image in zip(read, protected, strict=True):
            lossless.write(target / name, image, "RGB")
            written += 1
    return FileSummary(written, 0, tuple(failures))


def _fitting(network: Transformation, path: Path) -> torch.Tensor:
    image, mode = lossless.read(path)
    if mode == "L":
        raise TransformationError("is gray; convert it to RGB")
    network.output_shape(*image.shape)
    return image
