"""One experiment from its scenario to a folder of results."""

import contextlib
import functools
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import clients.app
from clients.simulated import Population
from fedenc import provenance
from fedenc.errors import EngineError, QuorumError, ScenarioError
from fedenc.files import write_atomically
from fedenc.scenario import Scenario
from fedenc.training.tensorboard import TensorBoard
from server.app import Event, Outcome, serve
from simulations import baselines as plain_training
from simulations import (
    cluster,
    engine,
    interrupts,
    leakage,
    report,
    result,
    secret,
    third_party,
)
from simulations.experiment import Experiment, OnEvent
from simulations.run_folder import PROVIDER, occupied

THIRD_PARTY = "third-party"  # the folder of a bundle that is trained for the run
TRACES = "participants.log"  # traces of participants' errors; for the driver alone
Perform = Callable[[Experiment, OnEvent], Outcome]


@dataclass(frozen=True)
class Finished:
    """A run that is complete."""

    folder: Path
    result: dict[str, Any]


def simulate(
    experiment: Experiment,
    folder: Path,
    *,
    resume: bool = False,
    baselines: bool = False,
    tensorboard: bool = False,
    on_event: OnEvent = lambda event: None,
) -> Finished:
    """Simulate an experiment with Flower and Ray in this process, and write its results.

    Args:
        folder: made if it does not exist; must be empty unless ``resume``.
        resume: continue with the pool and checkpoint of an earlier run of the same scenario.
        baselines: also train on the same plain images, all together and each owner's alone.
        tensorboard: also write the training's curves to ``folder/tensorboard``.

    Raises:
        FedencError: anything that stops the run; what was collected and trained before stays in
            ``folder`` for ``resume``.
    """

    more: dict[str, Any] = {}

    def perform(experiment: Experiment, on_event: OnEvent) -> Outcome:
        outcomes: list[Outcome] = []
        server_app = ServerApp()
        scenario = experiment.scenario

        @server_app.main()
        def main(grid: Grid, context: Context) -> None:
            with _curves(folder if tensorboard else None) as watch:
                outcomes.append(
                    serve(
                        grid,
                        experiment.provider_view,
                        scenario.clients.nodes,
                        folder / PROVIDER,
                        on_event,
                        experiment.given,
                        watch,
                    )
                )

        traces = (folder / TRACES).resolve()
        note = functools.partial(note_trace, traces)
        client_app = clients.app.make(functools.partial(host, scenario), note)
        own = scenario.engine
        session = engine.ray_session(own.address, cpus=own.cpus, object_store=own.object_store)
        with engine.logs_in(folder / result.LOG), session:
            interrupts.reinstall()
            if own.address is not None:
                more["cluster"] = cluster.check(
                    scenario, lambda done, total: on_event(Event("machines", done, total))
                )
            engine.simulate(server_app, client_app, scenario)
        if not outcomes:
            raise EngineError(f"the engine ended before the server did; see {folder / result.LOG}")
        return outcomes[0]

    return record(
        experiment, folder, perform, more, resume=resume, baselines=baselines, on_event=on_event
    )


def _curves(folder: Path | None) -> contextlib.AbstractContextManager[TensorBoard | None]:
    return contextlib.nullcontext() if folder is None else TensorBoard(folder / "tensorboard")


def record(
    experiment: Experiment,
    folder: Path,
    perform: Perform,
    more: Mapping[str, Any] = MappingProxyType({}),
    *,
    resume: bool = False,
    baselines: bool = False,
    on_event: OnEvent = lambda event: None,
) -> Finished:
    """Perform an experiment and write down its outcome.

    Args:
        more: further facts for ``result.json``; may be filled by ``perform``.
    """
    scenario = experiment.scenario
    if baselines and not scenario.uploads:
        raise ScenarioError(
            "--baselines train on what participants upload, and under transformation.answers = "
            "'third-party' they upload nothing; leave it out, or set it to 'central'"
        )
    with occupied(folder, scenario, resume):
        awaited = scenario.awaits_bundle
        if awaited:
            experiment = experiment.with_bundle(folder / THIRD_PARTY)
        if resume and (folder / result.RESULT).exists():
            return _finished(experiment, folder, baselines, on_event)
        logged, phases = _logged(folder / result.LOG, experiment, on_event), Phases()
        on_event = phases.watching(logged)
        if awaited:
            third_party.make(experiment.population, folder / THIRD_PARTY, on_event)
        try:
            outcome = perform(experiment, on_event)
        except QuorumError as error:
            raise QuorumError(f"{error}{_see_traces(folder)}") from None
        facts = result.build(experiment, outcome)
        facts |= {"phases": phases.seconds, "command": provenance.command(), **more}
        result.write(folder, experiment, outcome, facts)
        return _finished(experiment, folder, baselines, on_event)


def _see_traces(folder: Path) -> str:
    path = folder / TRACES
    return f"; what participants raised stands in {path}" if path.exists() else ""


class Phases:
    """How long each phase took: from its first event to its last."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._first: dict[str, float] = {}

    def watching(self, on_event: OnEvent) -> OnEvent:
        """The same, noting the time."""

        def noted(event: Event) -> None:
            now = time.perf_counter()
            self.seconds[event.phase] = now - self._first.setdefault(event.phase, now)
            on_event(event)

        return noted


def _finished(experiment: Experiment, folder: Path, baselines: bool, on_event: OnEvent) -> Finished:
    """A complete run: attacked, with baselines if they are wanted now, and with its report."""
    facts = result.read(folder)
    if experiment.scenario.uploads and "leakage" not in facts:
        on_event(Event("attacks", 0, 1, "what the provider can make of the uploads"))
        start, before = time.perf_counter(), sum(facts["phases"].values())
        facts["leakage"] = leakage.measure(experiment, folder, before)
        facts["phases"]["attacks"] = time.perf_counter() - start
        result.write_facts(folder, facts)
        on_event(Event("attacks", 1, 1))
    if baselines and "baselines" not in facts:
        facts["baselines"] = plain_training.measure(experiment.population, on_event)
        result.write_facts(folder, facts)
    write_atomically(folder / report.REPORT, report.of_run(folder).encode(), mode=0o600)
    return Finished(folder, facts)


def host(scenario: Scenario, context: Context) -> Population:
    """The population that a client process simulates, made once per process."""
    return _population(scenario.model_dump_json(by_alias=True))


@functools.lru_cache(maxsize=2)
def _population(text: str) -> Population:
    return Population(Scenario.model_validate_json(text))


def note_trace(path: Path | None, i: int | None, error: Exception) -> None:
    """Append what a participant raised, with its trace, to a file that only its own side reads.

    Args:
        path: the driver's file. Where its folder does not exist (on another machine) or is not
            known (``flwr run``), the file is beside the seed of simulated keys in the user's
            configuration folder.
        i: which participant; None: its whole node.
    """
    if path is None or not path.parent.is_dir():
        path = secret.path().with_name(TRACES)
        path.parent.mkdir(parents=True, exist_ok=True)
    who = "a node" if i is None else f"participant {i}"
    trace = "".join(traceback.format_exception(error))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {who}\n{trace}\n")


def _logged(path: Path, experiment: Experiment, on_event: OnEvent) -> OnEvent:
    """Also write what is run, and every tenth of a phase, to the log."""
    last = ("", -1)

    def write(text: str) -> None:
        with path.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def both(event: Event) -> None:
        nonlocal last
        on_event(event)
        mark = (event.phase, int(10 * event.done / max(event.total, 1e-9)))
        if mark != last:
            last = mark
            write(f"{event.phase} {event.done:g}/{event.total:g} {event.text}")

    scenario = experiment.scenario
    write(f"{experiment.name} on {scenario.data.name}, scenario {scenario.hash()}")
    for warning in experiment.warnings:
        write(f"warning: {warning}")
    return both
