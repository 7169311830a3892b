"""The provider's protocol, top to bottom: collect, train, answer, report."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedenc.errors import EngineError
from fedenc.files import write_atomically
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import Model
from fedenc.training.loop import Progress
from fedenc.training.model_files import ModelFiles
from server.actor import ActorTrainer
from server.collector import Failure, Phase, Roster, collect
from server.exchange import Exchange, window_of
from server.parallel import ParallelTrainer
from server.phases.queries import Queries
from server.phases.score import Score, Tally
from server.phases.upload import collect_uploads
from server.pool import Pool, PoolWriter
from server.ray import client_processes
from server.trainer import Predictor, Trained, Trainer

_NODES_TIMEOUT = 60.0  # seconds to wait for nodes to register


@dataclass(frozen=True)
class Event:
    """Something to tell the person who waits: a phase and how far it is."""

    phase: str  # "nodes", "upload", "training", "queries", "score"
    done: float
    total: float
    text: str = ""


@dataclass(frozen=True)
class Given:
    """Classifiers from a third party, as the files of model directories."""

    files: ModelFiles
    sha256: str  # of the weights
    foreign: ModelFiles | None = None  # one that never met the participants' network


@dataclass(frozen=True)
class Answered:
    """What came of the inference phases."""

    tallies: dict[int, Tally]
    failed: list[Failure]


@dataclass(frozen=True)
class Compared:
    """A further model that was trained on the uploads, and what came of asking it."""

    model: Trained
    answered: Answered


@dataclass(frozen=True)
class Outcome:
    """All that the provider knows when it is done."""

    uploads: dict[int, tuple[str, int, int]]  # participant -> cipher, images, bytes
    upload_seconds: float
    resumed: int
    model: Trained | Given  # trained on the uploads, or a third party's
    answered: Answered
    failed: list[Failure]
    compared: dict[str, Compared] = field(default_factory=dict)  # by input stage


def serve(
    grid: Grid,
    view: ProviderView,
    node_count: int,
    folder: Path,
    on_event: Callable[[Event], None],
    given: Given | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Collect, train, answer; or only answer, with classifiers that are given.

    Args:
        folder: the provider's own, for pool and checkpoint.
        on_event: called with everything that a person who waits may want to know.
        watch: called with every report of the training, such as a TensorBoard writer.

    Raises:
        QuorumError: too few uploads.
        ShardError: ``folder`` holds a pool that this run cannot go on with.
        TrainingError: training failed; its last good checkpoint is kept.
        EngineError: too few GPUs for the trainer, or nodes or trainer never came up.
    """
    if given is not None:
        with contextlib.closing(_make_trainer(view)) as trainer:
            exchange, roster = _meet(grid, view, node_count, on_event)
            trainer.adopt(given.files, given.foreign)
            members = set(range(view.participants))
            answered = answer_queries(exchange, roster, trainer, view, members, on_event)
        return Outcome({}, 0.0, 0, given, answered, answered.failed)
    with (
        contextlib.closing(PoolWriter(folder / "pool")) as pool,
        contextlib.closing(_make_trainer(view)) as trainer,
    ):
        exchange, roster = _meet(grid, view, node_count, on_event)

        def uploading(done: int) -> None:
            on_event(Event("upload", done, view.participants, f"{pool.nbytes / 1e6:.1f} MB"))

        uploading(len(pool))
        uploaded = collect_uploads(exchange, roster, pool, view, uploading)
        # Named after the pool: a checkpoint says nothing about another set of uploads.
        checkpoint = folder / f"checkpoint-{pool.digest[:16]}.bin"
        members = set(pool.participants)
        on_event(Event("training", 0, 1, f"on {trainer.where()}"))
        trainer.load(pool)
        trained = _train(trainer, checkpoint, on_event, watch)
        answered = answer_queries(exchange, roster, trainer, view, members, on_event)
        compared: dict[str, Compared] = {}
        failed = uploaded.failed + answered.failed
        for model in view.model.variants()[1:]:
            saved = checkpoint.with_stem(f"{checkpoint.stem}-{model.input}")
            tell = _named(on_event, model.input)
            further = _train(trainer, saved, tell, None, model)
            asked = answer_queries(exchange, roster, trainer, view, members, tell)
            compared[model.input] = Compared(further, asked)
            failed += [replace(f, phase=f"{f.phase} {model.input}") for f in asked.failed]
    return Outcome(
        uploads={i: _summary(pool, i) for i in pool.participants},
        upload_seconds=uploaded.seconds,
        resumed=uploaded.resumed,
        model=trained,
        answered=answered,
        failed=failed,
        compared=compared,
    )


def _make_trainer(view: ProviderView) -> Trainer:
    """Made first of all: one actor starts while others upload, and too few GPUs show at once."""
    return ActorTrainer(view) if view.server.workers == 1 else ParallelTrainer(view)


def _meet(
    grid: Grid, view: ProviderView, count: int, on_event: Callable[[Event], None]
) -> tuple[Exchange, Roster]:
    """Wait until all nodes have registered: the app may start before them."""
    end = time.monotonic() + _NODES_TIMEOUT
    while len(nodes := list(grid.get_node_ids())) < count:
        if time.monotonic() > end:
            raise EngineError(
                f"{len(nodes)} of {count} Flower nodes registered within {_NODES_TIMEOUT:g} s"
            )
        time.sleep(0.05)
    on_event(Event("nodes", count, count))
    from flwr.superlink.grid import InMemoryGrid  # it takes long to import, and only runs need it

    exchange = Exchange(grid, view.server.deadline)
    if isinstance(grid, InMemoryGrid):  # simulated: nodes share processes
        exchange.window = window_of(client_processes())
    return exchange, Roster(tuple(sorted(nodes)), view.participants + view.outsiders)


def _named(on_event: Callable[[Event], None], name: str) -> Callable[[Event], None]:
    """Events of a further model, told apart by its name."""
    return lambda event: on_event(replace(event, phase=f"{event.phase} {name}"))


def _train(
    trainer: Trainer,
    checkpoint: Path,
    on_event: Callable[[Event], None],
    watch: Callable[[Progress], None] | None,
    model: Model | None = None,
) -> Trained:
    state = checkpoint.read_bytes() if checkpoint.exists() else None

    def show(p: Progress) -> None:
        on_event(Event("training", p.step, p.steps, str(p)))
        if watch is not None:
            watch(p)

    return trainer.train(state, show, lambda saved: write_atomically(checkpoint, saved), model)


def answer_queries(
    exchange: Exchange,
    roster: Roster,
    predictor: Predictor,
    view: ProviderView,
    members: set[int],
    on_event: Callable[[Event], None],
) -> Answered:
    """Ask members and outsiders for queries, answer them, and let them score the answers.

    Args:
        members: participants whose upload was accepted.
    """

    def perform(phase: Phase) -> list[Failure]:
        total = len(phase.wanted)
        return collect(
            exchange,
            phase,
            attempts=view.server.attempts,
            progress=lambda done: on_event(Event(phase.name, done, total)),
        )

    queries = Queries(roster, view, members, predictor)
    failed = perform(queries)
    score = Score(roster, queries.scores)
    failed += perform(score)
    return Answered(score.tallies, failed)


def _summary(pool: Pool, participant: int) -> tuple[str, int, int]:
    m: Any = pool.manifest(participant)
    channels, height, width = m.shape
    return m.cipher, m.rows, m.rows * channels * height * width
