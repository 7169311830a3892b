"""An experiment without its engine: the same uploads, training and queries, all in this process.

It shows nothing about messages, time or faults, but the same accuracy: the model is byte for byte
the one of a run with the engine.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch

from clients.simulated import Population
from fedenc.files import write_atomically
from fedenc.models.network import Network
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import FOREIGN
from fedenc.training.cadence import with_checkpoints
from fedenc.training.loop import Reports, Worker
from fedenc.training.model_files import unpack_model
from fedenc.training.predict import predict
from server.app import Answered, Compared, Event, Outcome
from server.phases.score import Tally
from server.pool import join
from server.recipe import begin, model_files, with_model
from server.trainer import CHECKPOINT_SECONDS, Pace, ReceivedPool, Trained, TrainedModel
from server.trainer import device_name as name_of
from simulations.experiment import Experiment, OnEvent
from simulations.run_folder import PROVIDER


def perform(experiment: Experiment, folder: Path, on_event: OnEvent) -> Outcome:
    """Upload, train and ask.

    Args:
        folder: for checkpoints, from which an interrupted training continues.

    Raises:
        TrainingError: as in a run.
    """
    view, people = experiment.provider_view, experiment.population
    device = torch.device("cuda" if torch.cuda.is_available() and view.server.gpus else "cpu")
    with _threads(view.server.threads or os.cpu_count() or 1):
        if (given := experiment.given) is not None:
            psi = unpack_model(given.files)[0]
            foreign = None if given.foreign is None else unpack_model(given.foreign)[0]
            return Outcome({}, 0.0, 0, given, _ask(people, view, psi, device, foreign), [])
        shards = [people.participant(i).upload() for i in range(view.participants)]
        manifests = [shard.manifest for shard in shards]
        sizes = {m.participant: (m.cipher, m.rows, m.rows * prod(m.shape)) for m in manifests}
        images, labels = join(shards)
        pool = ReceivedPool(len(labels), view.shape, device)
        pool.append(images, labels)
        found: dict[str, Compared] = {}
        for model in view.model.variants():
            path = folder / f"checkpoint-{model.input}.bin"
            trained, network = _train(with_model(view, model), pool, device, path, on_event)
            found[model.input] = Compared(trained, _ask(people, view, network, device))
    own = found.pop(view.model.input)
    return Outcome(sizes, 0.0, 0, own.model, own.answered, [], found)


def in_folder(folder: Path) -> Callable[[Experiment, OnEvent], Outcome]:
    """``perform`` with its checkpoints in the provider's folder of a run's, for ``record``."""
    return lambda experiment, on_event: perform(experiment, folder / PROVIDER, on_event)


def _train(
    view: ProviderView, pool: ReceivedPool, device: torch.device, path: Path, on_event: OnEvent
) -> tuple[Trained, Network]:
    state = path.read_bytes() if path.exists() else None
    run, pace = begin(view, pool, device, state, Reports(), Worker()), Pace()
    for progress, saved in with_checkpoints(run, seconds=CHECKPOINT_SECONDS):
        pace.add(progress)
        on_event(Event("training", progress.step, progress.steps, str(progress)))
        if saved is not None:
            write_atomically(path, saved)
    files, sha256 = model_files(run.model, view, run.precision)
    threads = torch.get_num_threads()
    model = TrainedModel(files, sha256, name_of(device), threads, run.precision)
    return pace.trained(model), run.model


def _ask(
    people: Population,
    view: ProviderView,
    model: Network,
    device: torch.device,
    foreign: Network | None = None,
) -> Answered:
    """Everybody's own counts of right answers."""
    tallies: dict[int, Tally] = {}
    for i in range(view.participants + view.outsiders):
        owner = people.participant(i)
        scores = {
            shard.manifest.purpose: predict(
                foreign if foreign is not None and shard.manifest.purpose == FOREIGN else model,
                torch.from_numpy(shard.images),
                device=device,
                flip=view.flip,
            ).numpy()
            for shard in owner.queries(view.conditions)
        }
        if scores:
            tallies[i] = Tally(**vars(owner.score(scores)))  # type: ignore[arg-type]
    return Answered(tallies, [])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run torch with this many threads, as the provider's trainer does."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
