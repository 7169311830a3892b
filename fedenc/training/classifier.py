"""Image files in, class scores out: what ``fedenc predict`` does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedenc.errors import DataError, TrainingError
from fedenc.images.decode import decode, sides
from fedenc.training.model_files import load_model
from fedenc.training.predict import predict

_BATCH = 256  # files decoded before they are scored


@dataclass(frozen=True)
class Guess:
    """Classes of one image by falling score, or why there are none."""

    path: Path
    classes: tuple[tuple[str, float], ...] = ()  # name, score in [0, 1]
    error: str = ""


class Classifier:
    """A model directory, as a run of fedenc leaves it, ready to score images.

    Args:
        directory: holds ``model.safetensors`` and ``config.json``.
        flip: average over the mirrored image too.
        resize: scale images (short side, then centre crop) to the model's size. Never do that to
            encrypted ones: it mixes pixels that were encrypted apart.

    Raises:
        TrainingError: the directory holds no usable model of RGB images.
    """

    def __init__(self, directory: Path, *, flip: bool = False, resize: bool = False) -> None:
        self._model, details = load_model(directory)
        architecture = self._model.architecture
        if architecture.channels != 3:
            raise TrainingError(
                f"the model in {directory} takes images of {architecture.channels} channels; "
                "only models of RGB images can score files"
            )
        names = details.get("classes") or range(architecture.classes)
        if not isinstance(names, list | range) or len(names) != architecture.classes:
            raise TrainingError(
                f"the model in {directory} tells {architecture.classes} classes apart, and its "
                f"configuration names {str(names)[:60]}; copy both files from the same run"
            )
        self.names = tuple(str(name) for name in names)
        self._size = self._height, self._width = architecture.size
        self._flip, self._resize = flip, resize
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, paths: Sequence[Path]) -> Iterator[Guess]:
        """Score files, in order; one that cannot be read does not stop the rest."""
        for start in range(0, len(paths), _BATCH):
            yield from self._batch(paths[start : start + _BATCH])

    def _batch(self, paths: Sequence[Path]) -> Iterator[Guess]:
        read = [self._read(path) for path in paths]
        images = [image for image in read if isinstance(image, Tensor)]
        scores: Iterator[Tensor] = iter(())
        if images:
            batch = torch.stack(images)
            scores = iter(predict(self._model, batch, device=self._device, flip=self._flip))
        for path, found in zip(paths, read, strict=True):
            if isinstance(found, str):
                yield Guess(path, error=found)
            else:
                values, order = next(scores).sort(descending=True, stable=True)
                ranked = zip(order.tolist(), values.tolist(), strict=True)
                yield Guess(path, tuple((self.names[i], value) for i, value in ranked))

    def _read(self, path: Path) -> Tensor | str:
        """One image as uint8 3×H×W of the model's size, or what is wrong with it."""
        try:
            if not path.is_file():
                raise DataError(f"{path} does not exist")
            announced = sides(path)
            if announced and not self._resize and sorted(announced) != sorted(self._size):
                return self._misfit(path, *announced)  # before memory is spent on its pixels
            pixels = decode(
                path, str(path), self._height if self._resize and self._square else None
            )
        except DataError as error:
            return str(error)
        height, width = pixels.shape[:2]
        if (height, width) != self._size:
            return self._misfit(path, height, width)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    @property
    def _square(self) -> bool:
        return self._height == self._width

    def _misfit(self, path: Path, height: int, width: int) -> str:
        wanted = f"{self._height}×{self._width}"
        return f"{path} is {height}×{width}, the model takes {wanted}; resize it" + (
            " or use --resize (never on encrypted images)" if self._square else ""
        )
