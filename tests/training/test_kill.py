"""A run killed without warning, at random moments, and resumed until it is done."""

import random
import signal
import subprocess
import sys
import time

import pytest

from fedenc.training import checkpoint

SCRIPT = """
import sys
from pathlib import Path
import torch
from fedenc import models
from fedenc.files import write_atomically
from fedenc.training import model_files
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit

torch.set_num_threads(1)
path = Path(sys.argv[1])
generator = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (96, 3, 8, 8), dtype=torch.uint8, generator=generator)
labels = torch.randint(0, 4, (96,), generator=generator)
model = models.build("resnet20", channels=3, classes=4, size=(8, 8))
config = TrainingConfig(epochs=3, batch_size=8, augmentation="crop-flip", ema=0.9)
state = path.read_bytes() if path.exists() else None
run = fit(model, images, labels, config=config, seed=1, device=torch.device("cpu"),
          state=state, every_steps=1)
for progress in run:
    write_atomically(path, run.checkpoint())
print(model_files.weights_sha256(model))
"""


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path):
    def start(path):
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, text=True
        )

    expected, _ = start(tmp_path / "whole").communicate(timeout=300)
    assert len(expected.strip()) == 64

    path, moments, kills, last = tmp_path / "state", random.Random(4), 0, -1
    while True:
        process = start(path)
        target = last + moments.randint(3, 12)
        while process.poll() is None and kills < 2:
            if path.exists() and checkpoint.unpack(path.read_bytes())[1]["step"] >= target:
                time.sleep(moments.random() * 0.02)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        found, _ = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
        last = checkpoint.unpack(path.read_bytes())[1]["step"]
    assert kills == 2
    assert found == expected
