"""A run killed without warning, at random moments, and resumed until it is done."""

import random
import signal
import time
from pathlib import Path

import pytest
import tiny
import torch

from fedenc.files import write_atomically
from fedenc.training import checkpoint, model_files
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Reports, fit


def train(folder: Path) -> None:
    """What each process does: go on from the last checkpoint, and tell the weights at the end."""
    torch.set_num_threads(1)
    path, model = folder / "state", tiny.network(dropout=0.2)
    config = TrainingConfig(epochs=3, batch_size=8, augmentation="crop-flip", ema=0.9)
    run = fit(
        model,
        tiny.examples(96),
        config,
        seed=1,
        device=torch.device("cpu"),
        state=path.read_bytes() if path.exists() else None,
        reports=Reports(steps=1),
    )
    for _ in run:
        write_atomically(path, run.checkpoint())
        time.sleep(0.01)  # or it would be done before it can be killed
    write_atomically(folder / "digest", model_files.weights_sha256(model).encode())


def step(folder: Path) -> int:
    """How far the last checkpoint is."""
    path = folder / "state"
    return int(checkpoint.unpack(path.read_bytes())[1]["step"]) if path.exists() else -1


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    def start(folder: Path):
        folder.mkdir(exist_ok=True)
        process = tiny.processes().Process(target=train, args=(folder,))
        process.start()
        return process

    whole, folder, moments = tmp_path / "whole", tmp_path / "killed", random.Random(4)
    alone = start(whole)
    for _ in range(3):
        process = start(folder)
        target = step(folder) + moments.randint(3, 9)
        while process.is_alive() and step(folder) < target:
            time.sleep(0.001)
        time.sleep(moments.random() * 0.02)
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    last = start(folder)
    for process in (alone, last):
        process.join(300)
        assert process.exitcode == 0
    assert (folder / "digest").read_text() == (whole / "digest").read_text()
