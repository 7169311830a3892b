"""The provider's protocol, top to bottom: collect, train, answer, report."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedenc.errors import EngineError
from fedenc.files import write_atomically
from fedenc.scenario import ProviderView
from fedenc.training.loop import Progress
from fedenc.training.model_files import ModelFiles
from server.answers import Answered, answer_queries
from server.collector import Failure, Roster
from server.exchange import Exchange
from server.parallel import ParallelTrainer
from server.pool import Pool
from server.trainer import Trained, Trainer, cluster_resources, gpus_per_worker
from server.uploads import collect_uploads

_NODES_TIMEOUT = 60.0  # seconds to wait for nodes to register


@dataclass(frozen=True)
class Event:
    """Something to tell the person who waits: a phase and how far it is."""

    phase: str  # "nodes", "upload", "training", "queries", "score"
    done: float
    total: float
    text: str = ""


Report = Callable[[Event], None]


@dataclass(frozen=True)
class Given:
    """Classifiers from a third party, as the files of model directories."""

    files: ModelFiles
    sha256: str  # of the weights
    foreign: ModelFiles | None = None  # one that never met the participants' network


@dataclass(frozen=True)
class Outcome:
    """All that the provider knows when it is done."""

    uploads: dict[int, tuple[str, int, int]]  # participant -> cipher, images, bytes
    upload_seconds: float
    resumed: int
    model: Trained | Given  # trained on the uploads, or a third party's
    answered: Answered
    failed: list[Failure]


def serve(
    grid: Grid,
    view: ProviderView,
    node_count: int,
    folder: Path,
    report: Report,
    given: Given | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Collect, train, answer; or only answer, with classifiers that are given.

    Args:
        folder: the provider's own, for pool and checkpoint.
        watch: called with every report of the training, such as a TensorBoard writer.

    Raises:
        QuorumError: too few uploads.
        TrainingError: training failed; its last good checkpoint is kept.
        EngineError: too few GPUs for the trainer, or nodes or trainer never came up.
    """
    gpus_per_worker(view.server, cluster_resources())  # a shortage shows before anyone uploads
    nodes = _await_nodes(grid, node_count, report)
    exchange = Exchange(grid, view.server.deadline)
    roster = Roster(nodes, view.participants + view.outsiders)

    def answering(phase: str, done: int, total: int) -> None:
        report(Event(phase, done, total))

    if given is not None:
        with contextlib.closing(Trainer(view)) as predictor:
            predictor.adopt(given.files, given.foreign)
            members = set(range(view.participants))
            answered = answer_queries(exchange, roster, predictor, view, members, answering)
        return Outcome({}, 0.0, 0, given, answered, answered.failed)
    with contextlib.closing(Pool(folder / "pool")) as pool:

        def uploading(done: int) -> None:
            report(Event("upload", done, view.participants, f"{pool.nbytes / 1e6:.1f} MB"))

        uploading(len(pool))
        uploaded = collect_uploads(exchange, roster, pool, view, uploading)
        # Named after the pool: a checkpoint says nothing about another set of uploads.
        checkpoint = folder / f"checkpoint-{pool.digest[:16]}.bin"
        trainer = Trainer(view) if view.server.workers == 1 else ParallelTrainer(view)
        with contextlib.closing(trainer):
            trained = _train(trainer, pool, checkpoint, report, watch)
            members = set(pool.participants)
            answered = answer_queries(exchange, roster, trainer, view, members, answering)
    return Outcome(
        uploads={i: _summary(pool, i) for i in pool.participants},
        upload_seconds=uploaded.seconds,
        resumed=uploaded.resumed,
        model=trained,
        answered=answered,
        failed=uploaded.failed + answered.failed,
    )


def _await_nodes(grid: Grid, count: int, report: Report) -> tuple[int, ...]:
    """Wait until all nodes have registered: the app may start before them."""
    end = time.monotonic() + _NODES_TIMEOUT
    while len(nodes := list(grid.get_node_ids())) < count:
        if time.monotonic() > end:
            raise EngineError(
                f"{len(nodes)} of {count} Flower nodes registered within {_NODES_TIMEOUT:g} s"
            )
        time.sleep(0.05)
    report(Event("nodes", count, count))
    return tuple(sorted(nodes))


def _train(
    trainer: Trainer | ParallelTrainer,
    pool: Pool,
    checkpoint: Path,
    report: Report,
    watch: Callable[[Progress], None] | None,
) -> Trained:
    where = trainer.where()
    report(Event("training", 0, 1, f"on {where['device']}"))
    trainer.load(pool)
    state = checkpoint.read_bytes() if checkpoint.exists() else None

    def show(p: Progress) -> None:
        report(Event("training", p.step, p.steps, str(p)))
        if watch is not None:
            watch(p)

    return trainer.train(state, show, lambda saved: write_atomically(checkpoint, saved))


def _summary(pool: Pool, participant: int) -> tuple[str, int, int]:
    m: Any = pool.manifest(participant)
    channels, height, width = m.shape
    return m.cipher, m.rows, m.rows * channels * height * width
