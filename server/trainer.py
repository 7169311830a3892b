"""The Ray-scheduled trainer and predictor.

One actor holds the pool, the model and the GPU (if there is one). It asks Ray for no CPU, because
Flower's client actors hold all of them, and for the custom resource ``trainer`` where a cluster
offers it. Bytes reach it through Ray, never through a path that both machines would have to share.
Training on several workers is in :mod:`server.parallel`.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch

from fedenc.errors import EngineError, TrainingError
from fedenc.models.network import Network
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import Server
from fedenc.training.loop import Progress, Reports, Run, fit
from fedenc.training.model_files import ModelFiles, pack_model, unpack_model
from fedenc.training.predict import predict
from fedenc.training.training_set import TrainingSet, room
from server.pool import Pool
from server.recipe import network, server_method, training_config

RESOURCE = "trainer"  # custom Ray resource that names the machine to train on
_RAY_TIMEOUT = 60.0  # seconds for Ray itself to start
_START_TIMEOUT = 120.0  # seconds for Ray to place and start the actor
PROGRESS_SECONDS = 1.0  # between two reports within an epoch
CHECKPOINT_SECONDS = 5.0  # between two checkpoints, which cost a copy of the weights each
CALL_TIMEOUT = 600.0  # seconds for one chunk, prediction or export
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Trained:
    """The result of training: weights in safetensors form and how they came about."""

    files: dict[str, bytes]  # the model directory: file name -> content
    sha256: str
    device: str
    threads: int
    epochs: int
    seconds: float
    images_per_second: float
    final_loss: float


class Pace:
    """Images and seconds of a training, over its reports and its restarts."""

    def __init__(self) -> None:
        self.last: Progress | None = None
        self.images = self.seconds = 0.0

    def add(self, progress: Progress) -> None:
        """Take the next report into account."""
        before = self.last.seconds if self.last is not None else 0.0
        # A process that starts again counts its seconds anew.
        since = progress.seconds - before if progress.seconds >= before else progress.seconds
        self.images += progress.images_per_second * since
        self.seconds += since
        self.last = progress

    def trained(self, files: dict[str, bytes], sha256: str, device: str, threads: int) -> Trained:
        """The result of a training that ended.

        Raises:
            TrainingError: it ended without a report.
        """
        if self.last is None:
            raise TrainingError("training ended without a single step")
        return Trained(
            files=files,
            sha256=sha256,
            device=device,
            threads=threads,
            epochs=self.last.epochs,
            seconds=self.seconds,
            images_per_second=self.images / self.seconds if self.seconds else 0.0,
            final_loss=self.last.loss,
        )


def begin(
    view: ProviderView,
    images: torch.Tensor,
    labels: torch.Tensor,
    device: torch.device,
    state: bytes | None,
    **how: Any,
) -> Run[Network]:
    """The training that a scenario describes; ``how`` are further arguments of ``fit``.

    Raises:
        TrainingError: what is wanted does not fit together, or ``state`` is another run's.
    """
    method = server_method(view.augmentation)
    return fit(
        network(view.model, view.shape, len(view.classes), view.seed),
        TrainingSet(images, labels, view.views),
        training_config(view.training, view.augmentation, method=method),
        seed=view.seed,
        device=device,
        state=state,
        **how,
    )


def export(model: Network, classes: Sequence[str]) -> tuple[dict[str, bytes], str]:
    """The files of the model directory, and the digest of the weights."""
    return pack_model(model, details={"classes": list(classes)})


def device_name(device: torch.device) -> str:
    """What a person calls it: the GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


class TrainerActor:
    """Runs inside Ray; see :class:`Trainer` for the side that calls it."""

    def __init__(self, gpu: bool, threads: int | None) -> None:
        if gpu and not torch.cuda.is_available():
            raise EngineError("Ray gave the trainer a GPU, but torch cannot use CUDA there")
        self._device = torch.device("cuda" if gpu else "cpu")
        torch.set_num_threads(threads or os.cpu_count() or 1)  # Ray would leave it one
        self._filled = 0
        self._foreign: Network | None = None

    def where(self) -> dict[str, Any]:
        """The machine and device in use."""
        return {
            "node": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
            "device": device_name(self._device),
            "threads": torch.get_num_threads(),
        }

    def allocate(self, rows: int, shape: tuple[int, int, int]) -> None:
        """Make room for the whole pool, on the device if it fits."""
        self._images, self._labels = room(rows, shape, self._device)
        self._filled = 0

    def append(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        """Copy the next rows of the pool into place."""
        rows = slice(self._filled, self._filled + len(labels))
        self._images[rows].copy_(torch.from_numpy(images.copy()))
        self._labels[rows].copy_(torch.from_numpy(labels.copy()))
        self._filled = rows.stop

    def train(
        self, view: ProviderView, state: bytes | None
    ) -> Iterator[tuple[Progress, bytes | None]]:
        """Train to the end, yielding progress, and now and then a checkpoint."""
        images, labels = self._images, self._labels
        reports = Reports(seconds=PROGRESS_SECONDS)
        run = begin(view, images, labels, self._device, state, reports=reports)
        self._model, self._classes = run.model, view.classes
        saved = time.monotonic()
        for progress in run:
            due = progress.done or time.monotonic() - saved > CHECKPOINT_SECONDS
            yield progress, run.checkpoint() if due else None
            saved = time.monotonic() if due else saved

    def predict(self, images: npt.NDArray[np.uint8], flip: bool, foreign: bool) -> Scores:
        """Class scores float32 N×classes for uint8 N×C×H×W images."""
        model = self._foreign if foreign else self._model
        assert model is not None, "no foreign classifier was given"
        queries = torch.from_numpy(images.copy())
        scores: Scores = predict(model, queries, device=self._device, flip=flip).numpy()
        return scores

    def export(self) -> tuple[dict[str, bytes], str]:
        """The files of the model directory, and the digest of the weights."""
        return export(self._model, self._classes)

    def adopt(self, files: ModelFiles, foreign: ModelFiles | None) -> None:
        """Answer queries with the models of these files, trained elsewhere."""
        self._model = unpack_model(files)[0].to(self._device)
        self._foreign = None if foreign is None else unpack_model(foreign)[0].to(self._device)


class Trainer:
    """A handle on the actor. Calls are bounded in time; failures become one clear error."""

    def __init__(self, view: ProviderView) -> None:
        self._view = view
        cluster = cluster_resources()
        gpus = gpus_per_worker(view.server, cluster)
        resources = {RESOURCE: 1.0} if cluster.get(RESOURCE) else None
        self._actor: Any = (
            ray.remote(TrainerActor)
            .options(num_cpus=0, num_gpus=gpus, resources=resources, max_concurrency=1)
            .remote(bool(gpus), view.server.threads)
        )

    def where(self) -> dict[str, Any]:
        """Wait until the actor runs, and say where.

        Raises:
            EngineError: Ray cannot place or start it.
        """
        where: dict[str, Any] = fetch(self._actor.where.remote(), _START_TIMEOUT)
        return where

    def load(self, pool: Pool) -> None:
        """Stream the pool to the actor, chunk by chunk, with at most two on their way."""
        fetch(self._actor.allocate.remote(pool.rows, self._view.shape))
        pending: list[Any] = []
        for images, labels in pool.read():
            pending.append(self._actor.append.remote(images, labels))
            if len(pending) == 2:
                fetch(pending.pop(0))
        for ref in pending:
            fetch(ref)

    def train(
        self,
        state: bytes | None,
        progress: Callable[[Progress], None],
        checkpoint: Callable[[bytes], None],
    ) -> Trained:
        """Train, passing on progress and checkpoints as they come.

        Raises:
            TrainingError: diverging loss, an unusable checkpoint, or a lost actor.
        """
        where = self.where()
        pace = Pace()
        stream = self._actor.train.options(num_returns="streaming").remote(self._view, state)
        for ref in stream:
            reported, saved = fetch(ref)
            pace.add(reported)
            progress(reported)
            if saved is not None:
                checkpoint(saved)
        files, sha256 = fetch(self._actor.export.remote())
        return pace.trained(files, sha256, where["device"], where["threads"])

    def adopt(self, files: ModelFiles, foreign: ModelFiles | None = None) -> None:
        """Answer queries with the models of these files, trained elsewhere.

        Raises:
            EngineError: Ray cannot place or start the actor.
            TrainingError: the files are no model's.
        """
        self.where()
        fetch(self._actor.adopt.remote(files, foreign))

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Scores:
        """Class scores for query images."""
        scores: Scores = fetch(self._actor.predict.remote(images, self._view.flip, foreign))
        return scores

    def close(self) -> None:
        """Give the actor's resources back."""
        ray.kill(self._actor)


def fetch(ref: Any, timeout: float = CALL_TIMEOUT) -> Any:
    """Wait for what an actor of the trainer's returns.

    Raises:
        TrainingError: it was lost, or raised this.
        EngineError: it did not answer in time, or raised this.
    """
    try:
        return ray.get(ref, timeout=timeout)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, (TrainingError, EngineError)) else error from None
    except ray.exceptions.GetTimeoutError:
        raise EngineError(
            f"the trainer did not answer within {timeout:g} s; check with `ray status` that a "
            "node offers what server.gpus asks for"
        ) from None
    except ray.exceptions.RayActorError as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"the trainer was lost ({reason}); run again with --resume") from None


def cluster_resources() -> Mapping[str, float]:
    """What all nodes of the Ray cluster offer together.

    Flower's simulation engine starts Ray beside the server, which therefore may have to wait.

    Raises:
        EngineError: Ray did not start in time.
    """
    end = time.monotonic() + _RAY_TIMEOUT
    while True:
        try:
            found: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            return found
        except ray.exceptions.RaySystemError:
            if time.monotonic() > end:
                raise EngineError(f"Ray did not start within {_RAY_TIMEOUT:g} s") from None
            time.sleep(0.05)


def gpus_per_worker(server: Server, cluster: Mapping[str, float]) -> int:
    """GPUs to ask Ray for, for each worker: none or one.

    Raises:
        EngineError: the cluster has fewer than are wanted, or too few for every worker.
    """
    available = int(cluster.get("GPU", 0))
    wanted = min(1, available) if server.gpus == "auto" else server.gpus
    if wanted * server.workers > available:
        raise EngineError(
            f"server.gpus = {server.gpus} and server.workers = {server.workers}, but the Ray "
            f"cluster has {available} GPUs and each worker needs its own; lower server.workers or "
            "set server.gpus to 0"
        )
    return wanted
