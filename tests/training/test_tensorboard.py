import sys

import pytest

from fedenc.errors import TrainingError
from fedenc.training.loop import Progress
from fedenc.training.tensorboard import TensorBoard

PROGRESS = Progress(
    epoch=1,
    epochs=2,
    step=7,
    steps=14,
    loss=1.25,
    accuracy=0.5,
    images_per_second=100.0,
    seconds=1.0,
    seconds_left=1.0,
    learning_rate=0.1,
)


class Writer:
    """Stands in for torch's SummaryWriter, which needs TensorBoard."""

    def __init__(self, directory: str) -> None:
        self.directory, self.scalars, self.closed = directory, [], False

    def add_scalar(self, *scalar: object) -> None:
        self.scalars.append(scalar)

    def close(self) -> None:
        self.closed = True


def test_reports_become_scalars_at_their_step(tmp_path, monkeypatch):
    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with TensorBoard(tmp_path) as board:
        board(PROGRESS)
    writer = board._writer
    assert writer.directory == str(tmp_path)
    assert writer.closed
    assert writer.scalars == [
        ("training/loss", 1.25, 7),
        ("training/accuracy", 0.5, 7),
        ("training/learning_rate", 0.1, 7),
        ("training/images_per_second", 100.0, 7),
    ]


def test_without_tensorboard_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        TensorBoard(tmp_path)


def test_the_real_writer_accepts_what_it_is_given(tmp_path):
    with TensorBoard(tmp_path) as board:
        board(PROGRESS)
    assert any("events" in path.name for path in tmp_path.iterdir())
