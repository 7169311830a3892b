"""Several workers against one, through torch.distributed with gloo."""

import subprocess
import sys

import pytest
import torch

from fedenc.errors import TrainingError

SCRIPT = """
import os
import sys
import torch
from torch import nn
from fedenc.models.network import Architecture, Network
from fedenc.training import checkpoint, rng
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit

rank, world, meeting, result = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
if world > 1:
    torch.distributed.init_process_group(
        "gloo", init_method="file://" + meeting, rank=rank, world_size=world)
generator = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (45, 3, 8, 8), dtype=torch.uint8, generator=generator)
labels = torch.randint(0, 4, (45,), generator=generator)
with rng.seeded(0, "test"):
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))
model = Network(Architecture("test", 3, 4, (8, 8)), nn.Identity(), body)
config = TrainingConfig(
    epochs=2, batch_size=16, learning_rate=0.05, precision="fp32", augmentation="crop-flip")
run = fit(model, images, labels, config=config, seed=1, device=torch.device("cpu"),
          rank=rank, world=world)
for progress in run:
    pass
torch.save([model.state_dict(), progress.loss, progress.accuracy], f"{result}.{rank}")
os._exit(0)  # gloo's threads may abort an interpreter that ends as usual: pytorch #179291
"""


@pytest.mark.slow
def test_two_workers_take_the_same_steps_as_one(tmp_path):
    def train(world):
        result = tmp_path / f"of-{world}"
        meeting = tmp_path / f"meeting-{world}"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(rank), str(world), str(meeting), str(result)]
            )
            for rank in range(world)
        ]
        assert [process.wait(timeout=300) for process in processes] == [0] * world
        return [torch.load(f"{result}.{rank}") for rank in range(world)]

    ((alone, loss, accuracy),) = train(1)
    for weights, shared_loss, shared_accuracy in train(2):
        for name, tensor in weights.items():
            assert torch.allclose(tensor, alone[name], atol=1e-5), name
        assert shared_loss == pytest.approx(loss, abs=1e-5)
        assert shared_accuracy == accuracy


def test_workers_cannot_report_by_the_clock_or_go_without_images():
    from fedenc import models
    from fedenc.training.config import TrainingConfig
    from fedenc.training.loop import fit

    model = models.build("resnet20", channels=1, classes=2, size=(8, 8))
    images, labels = torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)

    def start(config, **keywords):
        device = torch.device("cpu")
        return fit(model, images, labels, config=config, seed=0, device=device, **keywords)

    with pytest.raises(TrainingError, match="can only report by steps"):
        start(TrainingConfig(), rank=0, world=2, every_seconds=1.0)
    with pytest.raises(
        TrainingError, match="batch_size is 1; expected at least one image for each"
    ):
        start(TrainingConfig(batch_size=1), rank=0, world=2)
