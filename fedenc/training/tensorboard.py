"""Progress as TensorBoard scalars. TensorBoard is optional and is imported when it is asked for."""

from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from fedenc.errors import TrainingError
from fedenc.training.loop import Progress

_SCALARS = ("loss", "accuracy", "validation_loss", "learning_rate", "images_per_second")


class TensorBoard:
    """Writes each report under ``directory``: ``with TensorBoard(path) as board: board(progress)``.

    TrainingError if TensorBoard is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(
                f"TensorBoard cannot be imported ({error}); install it with `pip install "
                "tensorboard`, or train without it"
            ) from error
        self._writer: Any = SummaryWriter(str(directory))

    def __call__(self, progress: Progress) -> None:
        values = asdict(progress)
        for name in _SCALARS:
            if values[name] is not None:
                self._writer.add_scalar(f"training/{name}", values[name], progress.step)

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
