"""The Ray-scheduled trainer and predictor.

One actor holds the pool, the model and the GPU (if there is one). It asks Ray for no CPU, because
Flower's client actors hold all of them, and for the custom resource ``trainer`` where a cluster
offers it. Bytes reach it through Ray, never through a path that both machines would have to share.
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch

from fedenc import models
from fedenc.errors import EngineError, TrainingError
from fedenc.scenario import ProviderView
from fedenc.training.checkpoint import save_model
from fedenc.training.loop import Progress, fit
from fedenc.training.predict import predict
from server.pool import Pool
from server.recipe import server_method, training_config

RESOURCE = "trainer"  # custom Ray resource that names the machine to train on
_START_TIMEOUT = 120.0  # seconds for Ray to place and start the actor
_PROGRESS_SECONDS = 1.0  # between two reports within an epoch
_CHECKPOINT_SECONDS = 5.0  # between two checkpoints, which cost a copy of the weights each
_CALL_TIMEOUT = 600.0  # seconds for one chunk, prediction or export
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


class TrainerActor:
    """Runs inside Ray; see :class:`Trainer` for the side that calls it."""

    def __init__(self, gpu: bool, threads: int | None) -> None:
        if gpu and not torch.cuda.is_available():
            raise EngineError("Ray gave the trainer a GPU, but torch cannot use CUDA there")
        self._device = torch.device("cuda" if gpu else "cpu")
        torch.set_num_threads(threads or os.cpu_count() or 1)  # Ray would leave it one
        self._filled = 0

    def where(self) -> dict[str, Any]:
        """The machine and device in use."""
        cuda = self._device.type == "cuda"
        return {
            "node": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "threads": torch.get_num_threads(),
        }

    def allocate(self, rows: int, shape: tuple[int, int, int]) -> None:
        """Make room on the device for the whole pool."""
        self._images = torch.empty((rows, *shape), dtype=torch.uint8, device=self._device)
        self._labels = torch.empty(rows, dtype=torch.int64, device=self._device)
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
        self._classes = view.classes
        channels, height, width = view.shape
        self._model = models.build(
            view.model.name,
            channels=channels,
            classes=len(view.classes),
            size=(height, width),
            input=view.model.input,
            adapter=view.model.adapter,
            seed=view.seed,
        )
        run = fit(
            self._model,
            self._images,
            self._labels,
            config=training_config(
                view.training, view.augmentation, method=server_method(view.augmentation)
            ),
            seed=view.seed,
            device=self._device,
            views=view.views,
            state=state,
            every_seconds=_PROGRESS_SECONDS,
        )
        saved = time.monotonic()
        for progress in run:
            due = progress.done or time.monotonic() - saved > _CHECKPOINT_SECONDS
            yield progress, run.checkpoint() if due else None
            saved = time.monotonic() if due else saved

    def predict(self, images: npt.NDArray[np.uint8], flip: bool) -> Scores:
        """Class scores float32 N×classes for uint8 N×C×H×W images."""
        queries = torch.from_numpy(images.copy())
        scores: Scores = predict(self._model, queries, device=self._device, flip=flip).numpy()
        return scores

    def export(self) -> tuple[dict[str, bytes], str]:
        """The files of the model directory, and the digest of the weights."""
        with tempfile.TemporaryDirectory() as folder:
            details = {"classes": list(self._classes)}
            sha256 = save_model(Path(folder), self._model, details=details)
            return {path.name: path.read_bytes() for path in Path(folder).iterdir()}, sha256


class Trainer:
    """A handle on the actor. Calls are bounded in time; failures become one clear error."""

    def __init__(self, view: ProviderView) -> None:
        self._view = view
        cluster: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = _gpus(view.server.gpus, cluster)
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
        where: dict[str, Any] = self._get(self._actor.where.remote(), _START_TIMEOUT)
        return where

    def load(self, pool: Pool) -> None:
        """Stream the pool to the actor, chunk by chunk, with at most two on their way."""
        self._get(self._actor.allocate.remote(pool.rows, self._view.shape))
        pending: list[Any] = []
        for images, labels in pool.read():
            pending.append(self._actor.append.remote(images, labels))
            if len(pending) == 2:
                self._get(pending.pop(0))
        for ref in pending:
            self._get(ref)

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
        last: Progress | None = None
        visited = before = 0.0
        stream = self._actor.train.options(num_returns="streaming").remote(self._view, state)
        for ref in stream:
            last, saved = self._get(ref)
            visited += last.images_per_second * (last.seconds - before)
            before = last.seconds
            progress(last)
            if saved is not None:
                checkpoint(saved)
        if last is None:
            raise TrainingError("training ended without a single step")
        files, sha256 = self._get(self._actor.export.remote())
        return Trained(
            files=files,
            sha256=sha256,
            device=where["device"],
            threads=where["threads"],
            epochs=last.epochs,
            seconds=last.seconds,
            images_per_second=visited / last.seconds if last.seconds else 0.0,
            final_loss=last.loss,
        )

    def predict(self, images: npt.NDArray[np.uint8]) -> Scores:
        """Class scores for query images."""
        scores: Scores = self._get(self._actor.predict.remote(images, self._view.flip))
        return scores

    def close(self) -> None:
        """Give the actor's resources back."""
        ray.kill(self._actor)

    def _get(self, ref: Any, timeout: float = _CALL_TIMEOUT) -> Any:
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
            raise TrainingError(
                f"the trainer was lost ({reason}); run again with --resume"
            ) from None


def _gpus(wanted: str | int, cluster: Mapping[str, float]) -> int:
    """GPUs to ask Ray for: none or one.

    Raises:
        EngineError: one is demanded and the cluster has none.
    """
    available = int(cluster.get("GPU", 0))
    if wanted == "auto":
        return min(1, available)
    if int(wanted) > available:
        raise EngineError(
            f"server.gpus = {wanted}, but the Ray cluster has no GPU; set server.gpus to 0 or auto"
        )
    return int(wanted)
