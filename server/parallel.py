"""Training on several workers at once, data-parallel, through Ray Train.

Every worker runs the same loop on its share of every batch; gradients are averaged, by nccl between
GPUs and by gloo between CPUs. Ray Train starts the workers, joins them in a torch.distributed
group, and starts all of them again from the last checkpoint when one is lost.

Ray Train runs in the desk, an actor beside the server, and all that the workers tell goes over it;
to kill it ends them all. Chunks of the pool go through Ray's object store, one copy a machine: no
folder has to be shared between machines. Workers ask Ray for no CPU, because Flower's client actors
hold all of them, but for one byte of memory, because Ray Train cannot place what asks for nothing.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
import torch.distributed
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedenc.errors import EngineError, FedencError, TrainingError
from fedenc.scenario import ProviderView
from fedenc.training.loop import Progress, Reports, Worker
from fedenc.training.training_set import room
from server.pool import Pool
from server.trainer import (
    CALL_TIMEOUT,
    CHECKPOINT_SECONDS,
    RESOURCE,
    Pace,
    Scores,
    Trained,
    Trainer,
    begin,
    cluster_resources,
    device_name,
    export,
    fetch,
    gpus_per_worker,
)

MAX_FAILURES = 2  # times that all workers are started again
_START_TIMEOUT = 300.0  # seconds for Ray Train to start workers, which takes it 20 on a good day
_COLLECTIVE_TIMEOUT = 600  # seconds that a worker waits for the others
_REPORT_STEPS = 20  # steps between two reports; workers cannot agree on a clock
_POLL_SECONDS = 0.2  # between two looks at the desk


@dataclass(frozen=True)
class Finished:
    """What the first worker hands in at the end."""

    files: dict[str, bytes]
    sha256: str
    device: str
    threads: int


@dataclass
class News:
    """What was laid on the desk since the last look."""

    progress: list[Progress] = field(default_factory=list)
    checkpoint: bytes | None = None  # the newest
    started: bool = False
    error: FedencError | None = None
    finished: Finished | None = None


class Desk:
    """An actor that runs Ray Train, outlives workers, and keeps what they hand in.

    It needs two threads, as ``fit`` blocks one.
    """

    def __init__(self, state: bytes | None) -> None:
        self._state = state
        self._news = News()

    def take(self) -> bytes | None:
        """The last checkpoint, for workers that start."""
        self._news.started = True
        return self._state

    def post(self, progress: Progress, checkpoint: bytes | None) -> None:
        """Progress, and now and then a checkpoint, from the first worker."""
        self._news.progress.append(progress)
        if checkpoint is not None:
            self._state = self._news.checkpoint = checkpoint

    def fail(self, error: FedencError) -> None:
        """An error that starting again would not mend; the first counts."""
        self._news.error = self._news.error or error

    def finish(self, finished: Finished) -> None:
        """The trained model, from the first worker."""
        self._news.finished = finished

    def look(self) -> News:
        """All that is new."""
        news, self._news = self._news, News()
        return news

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
    desk: Any
    rows: int
    chunks: tuple[tuple[Any, Any], ...]  # references to images and labels, in order
    checkpoint_seconds: float
    max_failures: int


class ParallelTrainer:
    """Like :class:`server.trainer.Trainer`, for ``server.workers`` above 1.

    Raises:
        EngineError: the cluster has a GPU, but not one for each worker.
    """

    def __init__(self, view: ProviderView) -> None:
        self._view = view
        self._resources = _resources(view, cluster_resources())
        self._chunks: list[tuple[Any, Any]] = []
        self._rows = 0
        self._predictor: Trainer | None = None

    def where(self) -> dict[str, Any]:
        """What training will run on. Ray Train finds places for the workers only then."""
        kind = "GPU" if "GPU" in self._resources else "CPU"
        return {"device": f"{self._view.server.workers} {kind} workers"}

    def load(self, pool: Pool) -> None:
        """Put the pool into Ray's object store."""
        self._chunks = [(ray.put(images), ray.put(labels)) for images, labels in pool.read()]
        self._rows = pool.rows

    def train(
        self,
        state: bytes | None,
        progress: Callable[[Progress], None],
        checkpoint: Callable[[bytes], None],
    ) -> Trained:
        """Train, passing on progress and checkpoints as they come; then be ready for queries.

        Raises:
            TrainingError: diverging loss, an unusable checkpoint, or workers lost again and again.
            EngineError: Ray Train cannot start.
        """
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(Desk).options(num_cpus=0, max_concurrency=2, scheduling_strategy=here)
        desk: Any = actor.remote(state)
        task = Task(
            view=self._view,
            desk=desk,
            rows=self._rows,
            chunks=tuple(self._chunks),
            checkpoint_seconds=CHECKPOINT_SECONDS,
            max_failures=MAX_FAILURES,
        )
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            training = desk.fit.remote(task, self._resources, folder)
            try:
                trained = self._attend(desk, training, progress, checkpoint)
            finally:
                ray.kill(desk)
        self._chunks.clear()  # the object store may drop them
        self._predictor = Trainer(self._view)
        self._predictor.adopt(trained.files)
        return trained

    def _attend(
        self,
        desk: Any,
        training: Any,
        progress: Callable[[Progress], None],
        checkpoint: Callable[[bytes], None],
    ) -> Trained:
        """Look at the desk until all workers are done."""
        pace, began, started = Pace(), time.monotonic(), False
        finished: Finished | None = None
        while True:
            ended, _ = ray.wait([training], timeout=0)  # asked first, or news could be missed
            news: News = fetch(desk.look.remote())
            for reported in news.progress:
                pace.add(reported)
                progress(reported)
            if news.checkpoint is not None:
                checkpoint(news.checkpoint)
            if news.error is not None:
                raise news.error
            started, finished = started or news.started, news.finished or finished
            if ended:
                break
            if not started and time.monotonic() - began > _START_TIMEOUT:
                raise EngineError(
                    f"Ray Train did not start {self._view.server.workers} workers within "
                    f"{_START_TIMEOUT:g} s; check with `ray status` that the cluster offers "
                    f"{self._resources} to each"
                )
            ray.wait([training], timeout=_POLL_SECONDS)
        if (reason := fetch(training)) is not None:
            raise _failure(reason, self._view.server.workers, started)
        if finished is None:
            raise TrainingError("the workers ended without a model; run again with --resume")
        return pace.trained(finished.files, finished.sha256, finished.device, finished.threads)

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Scores:
        """Class scores for query images."""
        assert self._predictor is not None, "predict comes after train"
        return self._predictor.predict(images, foreign=foreign)

    def close(self) -> None:
        """Give all resources back."""
        if self._predictor is not None:
            self._predictor.close()


def _resources(view: ProviderView, cluster: Mapping[str, float]) -> dict[str, float]:
    """What each worker asks Ray for."""
    resources = {"memory": 1.0}
    if gpus_per_worker(view.server, cluster):
        resources["GPU"] = 1.0
    if offered := int(cluster.get(RESOURCE, 0)):
        # Machines that offer one trainer each may have to hold several workers.
        resources[RESOURCE] = 1 / math.ceil(view.server.workers / offered)
    return resources


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
        fetch(task.desk.fail.remote(error))


def _train(task: Task) -> None:
    import ray.train.torch

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    cores = max(1, (os.cpu_count() or 1) // context.get_local_world_size())
    torch.set_num_threads(task.view.server.threads or cores)
    device: torch.device = ray.train.torch.get_device()
    images, labels = _load(task.chunks, task.rows, task.view.shape, device)
    # One asks for all: a late report of a lost worker must not set some ahead of the others.
    state = [fetch(task.desk.take.remote()) if rank == 0 else None]
    torch.distributed.broadcast_object_list(state, src=0, device=device)
    run = begin(
        task.view,
        images,
        labels,
        device,
        state[0],
        reports=Reports(steps=_REPORT_STEPS),
        worker=Worker(rank, world),
    )
    saved = time.monotonic()
    posted: Any = None
    for progress in run:
        if rank:
            continue
        due = progress.done or time.monotonic() - saved >= task.checkpoint_seconds
        if posted is not None:
            fetch(posted)  # one report under way at a time
        posted = task.desk.post.remote(progress, run.checkpoint() if due else None)
        saved = time.monotonic() if due else saved
    if rank == 0:
        fetch(posted)
        files, sha256 = export(run.model, task.view.classes)
        name = f"{world} × {device_name(device)}"
        fetch(task.desk.finish.remote(Finished(files, sha256, name, torch.get_num_threads())))


def _load(
    chunks: Iterable[tuple[Any, Any]], rows: int, shape: tuple[int, int, int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole pool, on the device if it fits: uint8 rows×C×H×W images, int64 (rows,) labels."""
    images, labels = room(rows, shape, device)
    filled = 0
    for references in chunks:
        part, classes = ray.get(list(references), timeout=CALL_TIMEOUT)
        here = slice(filled, filled + len(classes))
        images[here].copy_(torch.from_numpy(part.copy()))
        labels[here].copy_(torch.from_numpy(classes.copy()))
        filled = here.stop
    return images, labels
