"""Training and prediction in one Ray actor, which holds the pool, the model and the GPU, if any.

Bytes reach it through Ray, never through a path that both machines would have to share. Training on
several workers is in :mod:`server.parallel`.
"""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch

from fedenc.errors import EngineError, TrainingError
from fedenc.models.network import Network
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import Model
from fedenc.training.cadence import with_checkpoints
from fedenc.training.loop import Progress, Reports, Worker
from fedenc.training.model_files import ModelFiles, unpack_model
from fedenc.training.predict import predict
from server.pool import Pool
from server.ray import actor_options, cluster_resources, fetch
from server.recipe import begin, model_files, with_model
from server.trainer import (
    CHECKPOINT_SECONDS,
    PROGRESS_SECONDS,
    Awaited,
    Pace,
    ReceivedPool,
    Scores,
    Trained,
    TrainedModel,
    device_name,
)

_START_TIMEOUT = 120.0  # seconds for Ray to place and start the actor


@dataclass(frozen=True)
class Place:
    """Where the actor runs."""

    node: str  # Ray's id of the machine
    device: str  # in words
    threads: int


class TrainerActor:
    """Runs inside Ray; see :class:`ActorTrainer` for the side that calls it."""

    def __init__(self, gpu: bool, threads: int | None) -> None:
        self._device = torch.device("cuda" if gpu else "cpu")
        torch.set_num_threads(threads or os.cpu_count() or 1)  # Ray would leave it one
        self._foreign: Network | None = None

    def place(self) -> Place:
        """The machine and device in use.

        Raises:
            EngineError: Ray gave it a GPU that torch cannot use.
        """
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise EngineError("Ray gave the trainer a GPU, but torch cannot use CUDA there")
        node = ray.get_runtime_context().get_node_id()
        return Place(node, device_name(self._device), torch.get_num_threads())

    def allocate(self, rows: int, shape: tuple[int, int, int]) -> None:
        """Make room for the whole pool."""
        self._pool = ReceivedPool(rows, shape, self._device)

    def append(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        """Take the next rows of the pool."""
        self._pool.append(images, labels)

    def train(
        self, view: ProviderView, state: bytes | None
    ) -> Iterator[tuple[Progress, bytes | None]]:
        """Train to the end, yielding progress, and now and then a checkpoint."""
        reports = Reports(seconds=PROGRESS_SECONDS)
        run = begin(view, self._pool, self._device, state, reports, Worker())
        self._model, self._precision = run.model, run.precision
        yield from with_checkpoints(run, seconds=CHECKPOINT_SECONDS)

    def trained(self, view: ProviderView) -> TrainedModel:
        """The model that was trained."""
        place = self.place()
        files, sha256 = model_files(self._model, view, self._precision)
        return TrainedModel(files, sha256, place.device, place.threads, self._precision)

    def predict(self, images: npt.NDArray[np.uint8], flip: bool, foreign: bool) -> Scores:
        """Class scores float32 N×classes for uint8 N×C×H×W images."""
        model = self._foreign if foreign else self._model
        assert model is not None, "no foreign classifier was given"
        queries = torch.from_numpy(images.copy())
        scores: Scores = predict(model, queries, device=self._device, flip=flip).numpy()
        return scores

    def adopt(self, files: ModelFiles, foreign: ModelFiles | None) -> None:
        """Answer queries with the models of these files, trained elsewhere."""
        self._model = unpack_model(files)[0].to(self._device)
        self._foreign = None if foreign is None else unpack_model(foreign)[0].to(self._device)


class ActorTrainer:
    """A :class:`server.trainer.Trainer` in one actor, which Ray starts while others upload.

    Calls are bounded in time; failures become one clear error.

    Raises:
        EngineError: the cluster has too few GPUs, or Ray does not start.
    """

    def __init__(self, view: ProviderView) -> None:
        self._view = view
        self._place: Place | None = None
        self._start(actor_options(view.server, cluster_resources()))

    def _start(self, options: dict[str, Any]) -> None:
        """Ask Ray for the actor, and do not wait for it."""
        self._options = options
        self._actor: Any = (
            ray.remote(TrainerActor)
            .options(**options, max_concurrency=1)
            .remote(bool(options["num_gpus"]), self._view.server.threads)
        )

    def place(self) -> Place:
        """Wait until the actor runs, and say where.

        Machines may have joined the cluster since it was asked for, among them one that it should
        be on, or left with it. It is started anew then: nothing has reached it yet.

        Raises:
            EngineError: Ray cannot place or start it.
            TrainingError: it was lost as it started, twice.
        """
        if self._place is None:
            options = actor_options(self._view.server, cluster_resources())
            if options != self._options:
                self.close()
                self._start(options)
            try:
                self._place = fetch(self._actor.place.remote(), _START_TIMEOUT)
            except TrainingError:
                self._start(options)
                self._place = fetch(self._actor.place.remote(), _START_TIMEOUT)
        assert self._place is not None
        return self._place

    def where(self) -> str:
        """Wait until the actor runs; its device."""
        return self.place().device

    def load(self, pool: Pool) -> None:
        """Stream the pool to the actor, chunk by chunk, with at most two on their way."""
        self.place()
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
        on_progress: Callable[[Progress], None],
        on_checkpoint: Callable[[bytes], None],
        model: Model | None = None,
    ) -> Trained:
        """Train, passing on progress and checkpoints as they come."""
        pace, view = Pace(), with_model(self._view, model)
        stream = self._actor.train.options(num_returns="streaming").remote(view, state)
        for ref in stream:
            progress, saved = fetch(ref)
            pace.add(progress)
            on_progress(progress)
            if saved is not None:
                on_checkpoint(saved)
        return pace.trained(fetch(self._actor.trained.remote(view)))

    def adopt(self, files: ModelFiles, foreign: ModelFiles | None = None) -> None:
        """Answer queries with the models of these files, trained elsewhere."""
        self.place()
        fetch(self._actor.adopt.remote(files, foreign))

    def predict(self, images: npt.NDArray[np.uint8], *, foreign: bool = False) -> Awaited:
        """Begin to compute class scores float32 N×classes for uint8 N×C×H×W images.

        The actor answers one call after another; the images may change once this returns.
        """
        return functools.partial(
            fetch, self._actor.predict.remote(images, self._view.flip, foreign)
        )

    def close(self) -> None:
        """Give the actor's resources back, if Ray itself has not ended."""
        if ray.is_initialized():
            ray.kill(self._actor)
