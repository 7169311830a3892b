"""Both kinds of trainer on a real Ray, without Flower: one actor, and several workers.

All tests share one Ray of one machine, which offers the resource ``trainer`` once. Whole runs are
in tests/e2e. That workers see every sample once an epoch, and average to the gradients of one, is
tested with the loop itself, in tests/training.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from fake_grid import SHAPE, provider_view
from ray._private.state import actors
from ray.util import placement_group, remove_placement_group

import server.actor
import server.parallel
import server.recipe
from fedenc.errors import EngineError, ScenarioError, TrainingError
from fedenc.scenario import load
from fedenc.scenario.sections import Server, Training
from fedenc.training import checkpoint
from fedenc.training.loop import Progress
from fedenc.training.model_files import unpack_model
from fedenc.training.predict import predict
from server.actor import ActorTrainer, TrainerActor
from server.parallel import Coordinator, ParallelTrainer, Update
from server.ray import RESOURCE
from server.trainer import Pace, TrainedModel, Trainer
from simulations import engine

IMAGES = np.random.Generator(np.random.Philox(1)).integers(0, 256, (64, *SHAPE), dtype=np.uint8)
LABELS = np.arange(64) % 5
# In two chunks, as larger pools come.
CHUNKS = [(IMAGES[:40], LABELS[:40]), (IMAGES[40:], LABELS[40:])]
POOL: Any = SimpleNamespace(rows=64, read=lambda: iter(CHUNKS))
WORKER = "RayTrainWorker"
real_ray = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("session")]


def _progress(step: int, seconds: float = 1.0, rate: float = 10.0) -> Progress:
    return Progress(1, 1, step, 100, 1.0, 0.5, rate, seconds, 0.0, 0.1)


def _alive(kind: str, state: str | None = "ALIVE") -> set[int]:
    """Process ids of actors of a class, of all there ever were or of those in one state."""
    return {
        actor["Pid"]
        for actor in actors().values()
        if actor["ActorClassName"] == kind and state in (None, actor["State"])
    }


def _wait(condition: Any, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(condition())


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    engine.quiet()
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
    ray.init(
        num_cpus=2,
        resources={RESOURCE: 1},
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=environment,
    )
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            # Without a dashboard Ray Train gives back what workers asked for only when the job
            # ends, where a training is left before its end. One byte of memory each is no loss.
            monkeypatch.setattr(server.parallel, "cluster_resources", lambda: {"CPU": 2.0})
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _made(kind: type[Any], **training: Any) -> Iterator[Any]:
    """A trainer of one kind, for 64 images of noise."""
    workers = 2 if kind is ParallelTrainer else 1
    view = provider_view(
        server=Server(workers=workers), training=Training(**({"batch_size": 16} | training))
    )
    with contextlib.closing(kind(view)) as trainer:
        yield trainer


# Sums and small objects


def test_every_worker_needs_an_image_of_a_batch() -> None:
    with pytest.raises(ScenarioError, match=r"training\.batch_size = 3 .* server\.workers = 4"):
        load(None, ["server.workers=4", "training.batch_size=3"])
    assert load(None, ["server.workers=4", "training.batch_size=4"]).server.workers == 4


def test_pace_counts_over_restarts() -> None:
    pace, model = Pace(), TrainedModel({}, "", "cpu", 1, "fp32")
    for progress in (_progress(10, 2.0), _progress(20, 3.0), _progress(15, 0.5, rate=4.0)):
        pace.add(progress)
    trained = pace.trained(model)
    assert trained.seconds == pytest.approx(3.5)
    assert trained.images_per_second == pytest.approx((3 * 10 + 0.5 * 4) / 3.5)
    with pytest.raises(TrainingError, match="without a single step"):
        Pace().trained(model)


def test_the_coordinator_tells_everything_once_and_keeps_the_last_checkpoint() -> None:
    coordinator = Coordinator(b"before")
    assert not coordinator.poll().started
    assert coordinator.start() == b"before"
    coordinator.report(_progress(1), b"one")
    coordinator.report(_progress(2), b"two")
    coordinator.report(_progress(3), None)
    coordinator.fail(TrainingError("first"))
    coordinator.fail(TrainingError("second"))
    coordinator.finish(TrainedModel({}, "", "cpu", 1, "fp32"))
    update = coordinator.poll()
    assert [p.step for p in update.progress] == [1, 2, 3]
    assert (update.checkpoint, str(update.error), update.started) == (b"two", "first", True)
    assert update.finished is not None
    assert coordinator.poll() == Update()
    assert coordinator.start() == b"two"


# One actor


def test_a_gpu_that_torch_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="Ray gave the trainer a GPU, but torch cannot use CUDA"):
        TrainerActor(gpu=True, threads=torch.get_num_threads()).place()


class TestActor:
    pytestmark = real_ray

    def test_it_trains_predicts_and_adopts_and_is_not_waited_for(self) -> None:
        """While another holds the machine that it should be on; client actors hold all CPUs."""
        cpus, machine = placement_group([{"CPU": 2}]), placement_group([{RESOURCE: 1}])
        assert cpus.wait(10)
        assert machine.wait(10)
        began = time.monotonic()
        with _made(ActorTrainer, epochs=2) as trainer:
            assert time.monotonic() - began < 30.0, "it is not waited for"
            time.sleep(1.0)
            assert not _alive("TrainerActor")
            remove_placement_group(machine)
            assert trainer.where() == "cpu"
            assert ray.available_resources().get(RESOURCE, 0) == 0
            assert ray.available_resources().get("CPU", 0) == 0
            trainer.load(POOL)
            seen, saved = list[Progress](), list[bytes]()
            trained = trainer.train(None, seen.append, saved.append)
            assert seen[-1].done
            assert checkpoint.unpack(saved[-1])[1]["step"] == seen[-1].step == 8
            assert (trained.device, trained.threads) == ("cpu", os.cpu_count())
            assert trained.epochs == 2
            _expect_scores(trainer, trained.files)
            _expect_scores(trainer, _adopted(trainer, trained.files))
        remove_placement_group(cpus)
        assert _wait(lambda: not _alive("TrainerActor"))

    def test_it_moves_to_a_trainer_machine_that_joined_meanwhile(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cluster = dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
        less = {name: count for name, count in cluster.items() if name != RESOURCE}
        answers = iter([less])
        monkeypatch.setattr(server.actor, "cluster_resources", lambda: next(answers, cluster))
        with _made(ActorTrainer) as trainer:
            assert _wait(lambda: len(_alive("TrainerActor")) == 1)
            first = _alive("TrainerActor")
            assert trainer.where() == "cpu"
            assert _wait(lambda: ray.available_resources().get(RESOURCE, 0) == 0)
            assert _wait(lambda: not _alive("TrainerActor") & first)
            assert trainer.where() == "cpu", "asked again, it stays where it is"

    def test_lost_before_it_is_needed_it_starts_anew_and_later_ends_in_one_line(self) -> None:
        def kill(*_: object) -> bool:
            for pid in _alive("TrainerActor"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return True
            return False

        with _made(ActorTrainer, epochs=2000) as trainer:
            assert _wait(kill)
            assert _wait(lambda: not _alive("TrainerActor"))
            trainer.load(POOL)
            with pytest.raises(TrainingError, match=r"trainer was lost .* --resume") as caught:
                trainer.train(None, kill, lambda state: None)
        assert "\n" not in str(caught.value)

    def test_what_never_starts_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server.actor, "_START_TIMEOUT", 1.0)
        nowhere = {"num_cpus": 0, "num_gpus": 0, "resources": {"nowhere": 1.0}}
        monkeypatch.setattr(server.actor, "actor_options", lambda server, cluster: nowhere)
        with (
            _made(ActorTrainer) as trainer,
            pytest.raises(EngineError, match="did not answer within 1 s; check with `ray status`"),
        ):
            trainer.load(POOL)


def _adopted(trainer: Trainer, files: Any) -> Any:
    """A model like another, but for its last layer, which the trainer has taken over."""
    model, _ = unpack_model(files)
    for parameter in list(model.parameters())[-2:]:
        parameter.data.neg_()
    changed, _ = server.recipe.model_files(model, provider_view(), "fp32")
    trainer.adopt(changed, files)
    waiting = trainer.predict(IMAGES), trainer.predict(IMAGES, foreign=True)
    own, foreign = (scores() for scores in waiting)
    np.testing.assert_allclose(own, _scores(changed), atol=1e-5)
    np.testing.assert_allclose(foreign, _scores(files), atol=1e-5)
    return changed


def _scores(files: Any) -> Any:
    return predict(unpack_model(files)[0], torch.tensor(IMAGES), device=torch.device("cpu")).numpy()


def _expect_scores(trainer: Trainer, files: Any) -> None:
    np.testing.assert_allclose(trainer.predict(IMAGES)(), _scores(files), atol=1e-5)


# Several workers


@dataclass
class Lost:
    """What was seen of a training whose workers were lost twice, once more than is borne."""

    first: set[int] = field(default_factory=set)  # process ids of workers
    second: set[int] = field(default_factory=set)
    before: list[int] = field(default_factory=list)  # steps reported by the first workers
    after: list[int] = field(default_factory=list)
    saved: list[bytes] = field(default_factory=list)
    saved_before: int = 0  # checkpoints made by the first
    error: str = ""


def _step(state: bytes) -> int:
    step: int = checkpoint.unpack(state)[1]["step"]
    return step


@pytest.fixture(scope="module")
def lost(session: None) -> Lost:
    """Of the first two workers one is killed after a checkpoint, of the second two both."""
    seen = Lost()

    def watch(progress: Progress) -> None:
        alive = _alive(WORKER)
        if alive - seen.first and seen.first:
            seen.second |= alive - seen.first
            seen.after.append(progress.step)
            if len(seen.saved) > seen.saved_before:
                for pid in seen.second:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            return
        seen.before.append(progress.step)
        if seen.saved and not seen.first:
            seen.first, seen.saved_before = alive, len(seen.saved)
            os.kill(max(alive), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(server.parallel, "MAX_FAILURES", 1)
        monkeypatch.setattr(server.parallel, "CHECKPOINT_SECONDS", 0.0)
        with _made(ParallelTrainer, epochs=50_000) as trainer:
            trainer.load(POOL)
            with pytest.raises(TrainingError) as caught:
                trainer.train(None, watch, seen.saved.append)
    seen.error = str(caught.value)
    return seen


class TestSeveralWorkers:
    pytestmark = real_ray

    def test_lost_workers_start_again_from_the_last_checkpoint(self, lost: Lost) -> None:
        assert (len(lost.first), len(lost.second)) == (2, 2)
        saved = _step(lost.saved[lost.saved_before - 1])
        assert 0 < saved < lost.after[0] <= max(lost.before) + 4
        assert lost.after == sorted(set(lost.after))

    def test_workers_lost_for_good_end_in_one_line(self, lost: Lost) -> None:
        assert lost.error.startswith("training on 2 workers failed and was started again 1 times")
        assert lost.error.endswith("--resume")
        assert "\n" not in lost.error
        assert ray.is_initialized()

    def test_a_run_goes_on_where_it_was_and_leaves_nothing_behind_when_it_is_left(
        self, lost: Lost
    ) -> None:
        """Such as when a checkpoint cannot be written."""
        before, steps = _alive(WORKER, None), list[int]()

        def fail(progress: Progress) -> None:
            steps.append(progress.step)
            raise OSError("no space left on device")

        with _made(ParallelTrainer, epochs=50_000) as trainer:
            trainer.load(POOL)
            with pytest.raises(OSError, match="no space left"):
                trainer.train(lost.saved[-1], fail, lambda state: None)
        assert _step(lost.saved[-1]) < steps[0] <= _step(lost.saved[-1]) + 4
        assert _wait(lambda: not _alive(WORKER) - before)
        assert len(_alive(WORKER, None) - before) == 2, "nobody was started again"

    def test_a_hopeless_run_ends_at_once(self) -> None:
        before = len(_alive(WORKER, None))
        with _made(ParallelTrainer, learning_rate=1e12, epochs=3) as trainer:
            trainer.load(POOL)
            with pytest.raises(TrainingError, match="training diverged before step"):
                trainer.train(None, lambda p: None, lambda state: None)
        assert len(_alive(WORKER, None)) == before + 2, "nobody was started again"

    def test_workers_that_never_start_are_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server.parallel, "_START_TIMEOUT", 5.0)
        nowhere = {"memory": 1.0, "nowhere": 1.0}
        monkeypatch.setattr(server.parallel, "worker_resources", lambda server, cluster: nowhere)
        with _made(ParallelTrainer) as trainer:
            trainer.load(POOL)
            with pytest.raises(EngineError, match=r"did not start 2 workers within 5 s.*'nowhere'"):
                trainer.train(None, lambda p: None, lambda state: None)
        assert _wait(lambda: not _alive("Coordinator") and not _alive(WORKER))

    def test_nothing_is_started_early(self) -> None:
        with _made(ParallelTrainer) as trainer:
            assert trainer.where() == "2 CPU workers"
            trainer.load(POOL)
            assert not _alive("Coordinator")


def test_workers_get_what_the_predictor_of_an_earlier_training_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one ``trainer`` resource or as many GPUs as workers they would else wait for ever."""

    class Stopped(Exception):
        pass

    class Predictor:
        closed = False

        def close(self) -> None:
            self.closed = True

    def stop() -> None:
        raise Stopped

    monkeypatch.setattr("server.parallel.cluster_resources", dict)
    monkeypatch.setattr("server.parallel.on_this_machine", stop)
    trainer, predictor = (
        ParallelTrainer(provider_view(server=Server(workers=2, gpus=0))),
        Predictor(),
    )
    trainer._predictor = predictor  # type: ignore[assignment]
    with pytest.raises(Stopped):
        trainer.train(None, lambda progress: None, lambda state: None)
    assert predictor.closed
