"""Training on several workers at once, data-parallel, through Ray Train.

Every worker runs the same loop on its share of every batch; gradients are averaged, by nccl between
GPUs and by gloo between CPUs. Ray Train starts the workers, joins them in a torch.distributed
group, and starts all of them again from the last checkpoint when one is lost.

Ray Train runs in an actor beside the server, the coordinator, through which the workers tell all
that they have to tell; to kill it ends them all. Chunks of the pool go through Ray's object store,
one copy a machine: no folder has to be shared between machines.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
import torch.distributed

from fedenc.errors import EngineError, FedencError, TrainingError
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import Model
from fedenc.training.cadence import with_checkpoints
from fedenc.training.loop import Progress, Reports, Worker
from fedenc.training.model_files import ModelFiles
from server.actor import ActorTrainer
from server.pool import Pool
from server.ray import cluster_resources, fetch, on_this_machine, worker_resources
from server.recipe import begin, model_files, with_model
from server.trainer import (
    CHECKPOINT_SECONDS,
    Awaited,
    Pace,
    ReceivedPool,
    Trained,
    TrainedModel,
    device_name,
)

MAX_FAILURES = 2  # times that all workers are started again
_START_TIMEOUT = 300.0  # seconds for Ray Train to start workers, which takes it 20 on a good day
_COLLECTIVE_TIMEOUT = 600  # seconds that a worker waits for the others
_REPORT_STEPS = 20  # steps between two reports; workers cannot agree on a clock
_POLL_SECONDS = 0.2  # between two questions to the coordinator


@dataclass
class Update:
    """What workers told the coordinator since it was asked last."""

    progress: list[Progress] = field(default_factory=list)
    checkpoint: bytes | None = None  # the newest
    started: bool = False
    error: FedencError | None = None
    finished: TrainedModel | None = None


class Coordinator:
    """An actor that runs Ray Train, outlives workers, and keeps what they tell.

    It needs two threads, as ``fit`` blocks one.
    """

    def __init__(self, state: bytes | None) -> None:
        self._state = state
        self._update = Update()

    def start(self) -> bytes | None:
        """The last checkpoint, for workers that start."""
        self._update.started = True
        return self._state

    def report(self, progress: Progress, checkpoint: bytes | None) -> None:
        """Progress, and now and then a checkpoint, from the first worker."""
        self._update.progress.append(progress)
        if checkpoint is not None:
            self._state = self._update.checkpoint = checkpoint

    def fail(self, error: FedencError) -> None:
        """An error that starting again would not mend; the first counts."""
        self._update.error = self._update.error or error

    def finish(self, model: TrainedModel) -> None:
        """The trained model, from the first worker."""
        self._update.finished = model

    def poll(self) -> Update:
        """All that is new."""
        update, self._update = self._update, Update()
        return update

    def fit(self, task: "Task", resources: Mapping[str, float], folder: str) -> str | None:
        """Train to the end, starting lost workers again.

        Args:
            task: for every worker.
            resources: what each worker asks Ray for.
            folder: for Ray Train's own notes, on this machine.

        Returns:
            What went wrong, if anything did.
        """
        # Takes seconds to import, and is not needed by most.
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        trainer = TorchTrainer(
            _work,
            train_loop_config={"task": task},
            torch_config=TorchConfig(timeout_s=_COLLECTIVE_TIMEOUT),
            scaling_config=ScalingConfig(
                num_workers=task.view.server.workers,
                use_gpu="GPU" in resources,
                resources_per_worker=dict(resources),
            ),
            run_config=RunConfig(
                name="training",
                storage_path=folder,
                failure_config=FailureConfig(
                    max_failures=task.max_failures,
                    controller_failure_limit=task.max_failures,  # type: ignore[call-arg]
                ),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            return _reason(error)
        return None


@dataclass(frozen=True)
class Task:
    """What every worker is told."""

    view: ProviderView
    coordinator: Any
    rows: int
    chunks: tuple[tuple[Any, Any], ...]  # references to images and labels, in order
    checkpoint_seconds: float
    max_failures: int


class ParallelTrainer:
    """A :class:`server.trainer.Trainer` for ``server.workers`` above 1.

    Nothing is started before it is needed.

    Raises:
        EngineError: the cluster has a GPU, but not one for each worker.
    """

    def __init__(self, view: ProviderView) -> None:
        self._view = view
        self._chunks: list[tuple[Any, Any]] = []
        self._rows = 0
        self._predictor: ActorTrainer | None = None
        self._resources()  # a shortage shows before anyone uploads

    def _resources(self) -> dict[str, float]:
        """What each worker asks Ray for, as the cluster is now."""
        return worker_resources(self._view.server, cluster_resources())

    def where(self) -> str:
        """What training will run on. Ray Train finds places for the workers only then."""
        kind = "GPU" if "GPU" in self._resources() else "CPU"
        return f"{self._view.server.workers} {kind} workers"

    def load(self, pool: Pool) -> None:
        """Put the pool into Ray's object store."""
        self._chunks = [(ray.put(images), ray.put(labels)) for images, labels in pool.read()]
        self._rows = pool.rows

    def train(
        self,
        state: bytes | None,
        on_progress: Callable[[Progress], None],
        on_checkpoint: Callable[[bytes], None],
        model: Model | None = None,
    ) -> Trained:
        """Train, passing on progress and checkpoints as they come; then be ready for queries."""
        if self._predictor is not None:  # of an earlier training: workers need what it holds
            self._predictor.close()
            self._predictor = None
        actor = ray.remote(Coordinator).options(
            num_cpus=0, max_concurrency=2, scheduling_strategy=on_this_machine()
        )
        coordinator: Any = actor.remote(state)
        task = Task(
            view=with_model(self._view, model),
            coordinator=coordinator,
            rows=self._rows,
            chunks=tuple(self._chunks),
            checkpoint_seconds=CHECKPOINT_SECONDS,
            max_failures=MAX_FAILURES,
        )
        resources = self._resources()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            training = coordinator.fit.remote(task, resources, folder)
            try:
                trained = self._follow(coordinator, training, resources, on_progress, on_checkpoint)
            finally:
                ray.kill(coordinator)
        self.adopt(trained.files)
        return trained

    def _follow(
        self,
        coordinator: Any,
        training: Any,
        resources: Mapping[str, float],
        on_progress: Callable[[Progress], None],
        on_checkpoint: Callable[[bytes], None],
    ) -> Trained:
        """Ask the coordinator what is new until all workers are done."""
        pace, began, started = Pace(), time.monotonic(), False
        finished: TrainedModel | None = None
        workers = self._view.server.workers
        while True:
            ended, _ = ray.wait([training], timeout=0)  # asked first, or an update could be missed
            update: Update = fetch(coordinator.poll.remote())
            for progress in update.progress:
                pace.add(progress)
                on_progress(progress)
            if update.checkpoint is not None:
                on_checkpoint(update.checkpoint)
            if update.error is not None:
                raise update.error
            started, finished = started or update.started, finished or update.finished
            if ended:
                break
            if not started and time.monotonic() - began > _START_TIMEOUT:
                raise EngineError(
                    f"Ray Train did not start {workers} workers within {_START_TIMEOUT:g} s; check "
                    f"with `ray status` that the cluster offers {dict(resources)} to each"
                )
            ray.wait([training], timeout=_POLL_SECONDS)
        if (reason := fetch(training)) is not None:
            raise _failure(reason, workers, started)
        if finished is None:
            raise TrainingError("the workers ended without a model; run again with --resume")
        return pace.trained(finished)

    def adopt(self, files: ModelFiles, foreign: ModelFiles | None = None) -> None:
        """Answer queries with the models of these files, in one actor."""
        self._predictor = self._predictor or ActorTrainer(self._view)
        self._predictor.adopt(files, foreign)

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Awaited:
        """Begin to compute class scores float32 N×classes for uint8 N×C×H×W images."""
        assert self._predictor is not None, "predict comes after train or adopt"
        return self._predictor.predict(images, foreign=foreign)

    def close(self) -> None:
        """Give all resources back."""
        self._chunks.clear()  # the object store may drop them
        if self._predictor is not None:
            self._predictor.close()


def _reason(error: Exception) -> str:
    """Ray Train's last error as one line."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    lines = [f"worker {rank}: {_line(failure)}" for rank, failure in sorted(failures.items())]
    return "; ".join(lines) or _line(getattr(error, "controller_failure", error))


def _failure(reason: str, workers: int, started: bool) -> FedencError:
    if not started:
        return EngineError(f"Ray Train could not start {workers} workers: {reason}")
    return TrainingError(
        f"training on {workers} workers failed and was started again {MAX_FAILURES} times in vain "
        f"({reason}); mend what is named and run again with --resume"
    )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _work(config: Mapping[str, Task]) -> None:
    """What a worker runs, from the beginning or from the last checkpoint."""
    task = config["task"]
    try:
        _train(task)
    except FedencError as error:  # starting again would end in the same
        fetch(task.coordinator.fail.remote(error))


def _train(task: Task) -> None:
    import ray.train.torch

    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size())
    cores = max(1, (os.cpu_count() or 1) // context.get_local_world_size())
    torch.set_num_threads(task.view.server.threads or cores)
    device: torch.device = ray.train.torch.get_device()
    pool = ReceivedPool(task.rows, task.view.shape, device)
    for chunk in task.chunks:
        pool.append(*fetch(list(chunk)))
    # One asks for all: a late report of a lost worker must not set some ahead of the others.
    state = [fetch(task.coordinator.start.remote()) if worker.rank == 0 else None]
    torch.distributed.broadcast_object_list(state, src=0, device=device)
    run = begin(task.view, pool, device, state[0], Reports(steps=_REPORT_STEPS), worker)
    if worker.rank:
        for _ in run:
            pass
        return
    reported: Any = None
    for progress, saved in with_checkpoints(run, seconds=task.checkpoint_seconds):
        if reported is not None:
            fetch(reported)  # one report under way at a time
        reported = task.coordinator.report.remote(progress, saved)
    fetch(reported)
    files, sha256 = model_files(run.model, task.view, run.precision)
    name = f"{worker.world} × {device_name(device)}"
    model = TrainedModel(files, sha256, name, torch.get_num_threads(), run.precision)
    fetch(task.coordinator.finish.remote(model))
