"""Several workers against one, through torch.distributed with gloo."""

import os
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from fedenc.errors import TrainingError
from fedenc.models.network import Architecture, Network
from fedenc.training import rng
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Reports, Worker, fit

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    epochs=2, batch_size=16, learning_rate=0.05, precision="fp32", augmentation="crop-flip"
)


def train(worker: Worker) -> tuple[dict[str, torch.Tensor], float, float]:
    """Weights, loss and accuracy at the end. No batch normalisation: each would see a part."""
    torch.set_num_threads(1)
    with rng.seeded(0, "test"):
        body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)
        )
    model = Network(Architecture("test", 3, 4, (8, 8)), nn.Identity(), body)
    (*_, last) = fit(model, tiny.examples(45), CONFIG, seed=1, device=CPU, worker=worker)
    return model.state_dict(), last.loss, last.accuracy


def work(worker: Worker, folder: Path) -> None:
    """What each worker's process does."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=worker.rank,
        world_size=worker.world,
    )
    torch.save(train(worker), folder / str(worker.rank))
    os._exit(0)  # gloo's threads may abort an interpreter that ends as usual: pytorch #179291


@pytest.mark.slow
def test_two_workers_take_the_same_steps_as_one(tmp_path: Path) -> None:
    processes = [
        tiny.processes().Process(target=work, args=(Worker(rank, 2), tmp_path)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    threads = torch.get_num_threads()
    alone, loss, accuracy = train(Worker())
    torch.set_num_threads(threads)
    for rank in (0, 1):
        weights, shared_loss, shared_accuracy = torch.load(tmp_path / str(rank))
        for name, tensor in weights.items():
            assert torch.allclose(tensor, alone[name], atol=1e-5), name
        assert shared_loss == pytest.approx(loss, abs=1e-5)
        assert shared_accuracy == accuracy


def test_workers_cannot_report_by_the_clock_or_go_without_images() -> None:
    def start(config: TrainingConfig, reports: Reports) -> None:
        worker = Worker(rank=0, world=2)
        data = tiny.examples(8)
        fit(tiny.network(), data, config, seed=0, device=CPU, reports=reports, worker=worker)

    with pytest.raises(TrainingError, match="can only report by steps"):
        start(CONFIG, Reports(seconds=1.0))
    with pytest.raises(
        TrainingError, match="batch_size is 1; expected at least one image for each"
    ):
        start(TrainingConfig(batch_size=1), Reports())
