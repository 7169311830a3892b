"""Training on several workers through Ray Train.

That workers see every sample once an epoch, and average to the gradients of one, is tested with the
loop itself, in tests/training. The comparison of accuracies here does without Ray, for speed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from fake_grid import SHAPE, provider_view
from ray._private.state import actors

import server.parallel
import server.trainer
import simulations.run as run_module
from fedenc.errors import EngineError, ScenarioError, TrainingError
from fedenc.scenario import load
from fedenc.scenario.sections import Server, Training
from fedenc.training.loop import Progress
from server.app import Event, serve
from server.parallel import Desk, Finished, ParallelTrainer
from server.trainer import Pace, cluster_resources, gpus_per_worker
from simulations import engine


def _progress(step: int, seconds: float = 1.0, rate: float = 10.0) -> Progress:
    return Progress(1, 1, step, 100, 1.0, 0.5, rate, seconds, 0.0, 0.1)


def _workers(state: str | None = None) -> list[int]:
    """Process ids of Ray Train's workers, of all or of those in one state."""
    return [
        actor["Pid"]
        for actor in actors().values()
        if actor["ActorClassName"] == "RayTrainWorker" and state in (None, actor["State"])
    ]


def test_workers_need_a_gpu_each_or_none() -> None:
    two = {"GPU": 2.0, "CPU": 8.0}
    assert gpus_per_worker(Server(workers=2), two) == 1
    assert gpus_per_worker(Server(workers=2, gpus=0), two) == 0
    assert gpus_per_worker(Server(workers=2), {"CPU": 8.0}) == 0
    for wanted in (Server(workers=3), Server(workers=3, gpus=1)):
        with pytest.raises(EngineError, match="workers = 3, but the Ray cluster has 2 GPUs"):
            gpus_per_worker(wanted, two)
    with pytest.raises(EngineError, match="has 0 GPUs"):
        gpus_per_worker(Server(gpus=1), {"CPU": 8.0})


def test_too_few_gpus_show_before_anyone_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 1.0, "CPU": 8.0})
    grid = SimpleNamespace()  # which nobody may use
    with pytest.raises(EngineError, match="workers = 2, but the Ray cluster has 1 GPUs"):
        serve(grid, provider_view(server=Server(workers=2)), 1, tmp_path, print)  # type: ignore[arg-type]


def test_resources_wait_for_a_ray_that_is_still_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower starts it beside the server."""
    asked: list[int] = []

    def starting() -> dict[str, float]:
        asked.append(1)
        if len(asked) < 3:
            raise ray.exceptions.RaySystemError("Ray has not been started yet")
        return {"CPU": 1.0}

    monkeypatch.setattr(ray, "cluster_resources", starting)
    assert cluster_resources() == {"CPU": 1.0}
    monkeypatch.setattr(server.trainer, "_RAY_TIMEOUT", 0.0)
    asked.clear()
    with pytest.raises(EngineError, match="Ray did not start within 0 s"):
        cluster_resources()


@pytest.mark.parametrize(
    ("workers", "offered", "share"), [(2, 2, 1.0), (2, 1, 0.5), (3, 2, 0.5), (4, 1, 0.25)]
)
def test_workers_share_what_trainer_machines_offer(
    workers: int, offered: int, share: float
) -> None:
    view = provider_view(server=Server(workers=workers))
    asked = server.parallel._resources(view, {"CPU": 8.0, "trainer": offered})
    assert asked == {"memory": 1.0, "trainer": share}
    assert "trainer" not in server.parallel._resources(view, {"CPU": 8.0})


def test_every_worker_needs_an_image_of_a_batch() -> None:
    with pytest.raises(ScenarioError, match=r"training\.batch_size = 3 .* server\.workers = 4"):
        load(None, ["server.workers=4", "training.batch_size=3"])
    assert load(None, ["server.workers=4", "training.batch_size=4"]).server.workers == 4


def test_pace_counts_over_restarts() -> None:
    pace = Pace()
    for progress in (_progress(10, 2.0), _progress(20, 3.0), _progress(15, 0.5, rate=4.0)):
        pace.add(progress)
    trained = pace.trained({}, "", "cpu", 1)
    assert trained.seconds == pytest.approx(3.5)
    assert trained.images_per_second == pytest.approx((3 * 10 + 0.5 * 4) / 3.5)
    with pytest.raises(TrainingError, match="without a single step"):
        Pace().trained({}, "", "cpu", 1)


def test_the_desk_tells_news_once_and_keeps_the_last_checkpoint() -> None:
    desk = Desk(b"before")
    assert not desk.look().started
    assert desk.take() == b"before"
    desk.post(_progress(1), b"one")
    desk.post(_progress(2), b"two")
    desk.post(_progress(3), None)
    desk.fail(TrainingError("first"))
    desk.fail(TrainingError("second"))
    desk.finish(Finished({}, "", "cpu", 1))
    news = desk.look()
    assert [p.step for p in news.progress] == [1, 2, 3]
    assert (news.checkpoint, str(news.error), news.started) == (b"two", "first", True)
    assert news.finished is not None
    assert desk.look() == server.parallel.News()
    assert desk.take() == b"two"


@pytest.mark.e2e
@pytest.mark.slow
def test_a_simulation_survives_the_death_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client actors hold all CPUs all the while."""
    monkeypatch.setattr(server.parallel, "CHECKPOINT_SECONDS", 0.0)
    steps: list[int] = []
    killed: list[int] = []
    started: list[int] = []

    def report(event: Event) -> None:
        if event.phase == "training" and event.done:
            steps.append(int(event.done))
            if not killed:
                killed.extend(_workers("ALIVE"))
                os.kill(killed[-1], signal.SIGKILL)
        if event.phase == "queries":
            started[:] = _workers()

    sets = ["clients.count=4", "clients.images=32", "inference.images=8", "training.epochs=25"]
    scenario = load(None, [*sets, "server.workers=2", "training.batch_size=32"])
    done = run_module.simulate(scenario, tmp_path / "run", report=report)
    assert len(killed) == 2
    assert len(set(started) - set(killed)) == 2, "both were started again"
    assert steps == sorted(set(steps)), "they went on where the last checkpoint was made"
    assert steps[-1] == 25 * 4
    assert done.result["training"]["device"] == "2 × cpu"
    assert done.result["training"]["threads"] == max(1, (os.cpu_count() or 1) // 2)
    assert done.result["accuracy"]["encrypted"]["queries"] == 4 * 8
    assert (tmp_path / "run" / "model.safetensors").exists()


KILLED = """
import os
import sys
from pathlib import Path

import server.parallel
from fedenc.scenario import load
from simulations.run import simulate

folder = Path(sys.argv[1])
server.parallel.CHECKPOINT_SECONDS = 0.0


def stop(event):
    if event.phase == "training" and list(folder.rglob("checkpoint-*.bin")):
        os._exit(7)


simulate(load(None, sys.argv[2:]), folder, report=stop)
"""


@pytest.mark.e2e
@pytest.mark.slow
def test_a_run_on_several_workers_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    folder, steps = tmp_path / "run", list[int]()

    def note(event: Event) -> None:
        if event.phase == "training" and event.done:
            steps.append(int(event.done))

    sets = [
        *("clients.count=4", "clients.images=32", "inference.images=8", "encryption.seed=1"),
        *("server.workers=2", "training.epochs=25", "training.batch_size=32"),
    ]
    killed = subprocess.run([sys.executable, "-c", KILLED, folder, *sets], timeout=300)
    assert killed.returncode == 7
    done = run_module.simulate(load(None, sets), folder, report=note, resume=True)
    assert steps[0] > 4, "the first epoch was not done again"
    assert steps[-1] == 25 * 4
    assert done.result["upload"]["resumed"] == 4
    assert done.result["accuracy"]["encrypted"]["queries"] == 4 * 8


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with engine.ray_session(None):
        yield


@contextlib.contextmanager
def _trainer(**training: Any) -> Iterator[ParallelTrainer]:
    """Two workers with 64 images of noise."""
    rng = np.random.Generator(np.random.Philox(1))
    images = rng.integers(0, 256, (64, *SHAPE), dtype=np.uint8)
    labels = rng.integers(0, 5, 64)
    view = provider_view(
        server=Server(workers=2), training=Training(**({"batch_size": 16} | training))
    )
    # In two chunks, as larger pools come.
    chunks = [(images[:40], labels[:40]), (images[40:], labels[40:])]
    trainer = ParallelTrainer(view)
    with contextlib.closing(trainer):
        trainer.load(SimpleNamespace(rows=64, read=lambda: iter(chunks)))  # type: ignore[arg-type]
        yield trainer


@pytest.mark.e2e
@pytest.mark.slow
def test_a_hopeless_run_ends_at_once(session: None) -> None:
    before = len(_workers())
    with (
        _trainer(learning_rate=1e12, epochs=3) as trainer,
        pytest.raises(TrainingError, match="training diverged before step"),
    ):
        trainer.train(None, lambda p: None, lambda state: None)
    assert len(_workers()) == before + 2, "nobody was started again"


@pytest.mark.e2e
@pytest.mark.slow
def test_a_run_that_is_left_leaves_nothing_behind(session: None) -> None:
    """Such as when a checkpoint cannot be written."""
    before = set(_workers())

    def fail(progress: Progress) -> None:
        raise OSError("no space left on device")

    with _trainer(epochs=100_000) as trainer, pytest.raises(OSError, match="no space left"):
        trainer.train(None, fail, lambda state: None)
    deadline = time.monotonic() + 60
    while set(_workers("ALIVE")) - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not set(_workers("ALIVE")) - before
    assert len(set(_workers()) - before) == 2, "nobody was started again"


@pytest.mark.e2e
@pytest.mark.slow
def test_workers_lost_for_good_end_in_one_line(
    session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.parallel, "MAX_FAILURES", 0)
    before = set(_workers())

    def kill(progress: Progress) -> None:
        for pid in set(_workers("ALIVE")) - before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    with (
        _trainer(epochs=2000) as trainer,
        pytest.raises(TrainingError, match=r"training on 2 workers failed .* --resume") as caught,
    ):
        trainer.train(None, kill, lambda state: None)
    assert "\n" not in str(caught.value)
    assert ray.is_initialized()


ACCURACY = """
import os
import sys
import torch
from fedenc import models
from fedenc.data import load
from fedenc.training.loop import fit
from fedenc.training.predict import predict
from fedenc.training.recipes import recipe

rank, world, meeting, seeds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
torch.set_num_threads(1)
if world > 1:
    torch.distributed.init_process_group(
        "gloo", init_method="file://" + meeting, rank=rank, world_size=world)
device, data = torch.device("cpu"), load("photos")
train, test = (torch.tensor(part.images) for part in (data.train, data.test))
labels, classes = torch.tensor(data.train.labels).long(), len(data.classes)
for seed in map(int, seeds):
    model = models.build("resnet20", channels=3, classes=classes, size=(32, 32), seed=seed)
    config = recipe("fast", epochs=16, augmentation="crop-flip")
    run = fit(
        model, train, labels, config=config, seed=seed, device=device, rank=rank, world=world)
    for progress in run:
        pass
    found = predict(model, test, device=device).argmax(1).numpy()
    print((found == data.test.labels).mean(), flush=True)
os._exit(0)  # gloo's threads may abort an interpreter that ends as usual: pytorch #179291
"""


@pytest.mark.slow
def test_two_workers_learn_as_well_as_one(tmp_path: Path) -> None:
    """ResNet-20, whose batch normalisation sees half a batch on each of two workers.

    Accuracies scatter by two points from seed to seed, and more in shorter runs.
    """

    def accuracies(calls: list[tuple[str, ...]]) -> list[list[float]]:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", ACCURACY, *call], stdout=subprocess.PIPE, text=True
            )
            for call in calls
        ]
        texts = [process.communicate(timeout=500)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(calls)
        return [[float(word) for word in text.split()] for text in texts]

    meeting, seeds = str(tmp_path / "meeting"), ("0", "1", "2")
    alone = [one for (one,) in accuracies([("0", "1", meeting, seed) for seed in seeds])]
    first, _ = accuracies([(rank, "2", meeting, *seeds) for rank in ("0", "1")])
    assert min(alone) > 0.5, "far above guessing"
    assert fmean(first) == pytest.approx(fmean(alone), abs=0.03), (alone, first)
