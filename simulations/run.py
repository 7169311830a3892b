"""One experiment from a scenario to a folder of results."""

import contextlib
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import clients.app
from clients.simulated import Population
from fedenc.errors import EngineError, ScenarioError
from fedenc.scenario import ProviderView, Scenario
from fedenc.training.tensorboard import TensorBoard
from server.app import Event, Given, Outcome, serve
from simulations import baselines as plain_training
from simulations import engine, result, third_party
from simulations.folder import occupied
from simulations.view import check, settle, view

PROVIDER = "provider"  # the provider's own folder inside a run's: pool and checkpoint
THIRD_PARTY = "third-party"  # the folder of a bundle that is trained for the run
Report = Callable[[Event], None]
Perform = Callable[[Scenario, ProviderView, Given | None, Report], Outcome]


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    result: dict[str, Any]


def simulate(
    scenario: Scenario,
    folder: Path,
    *,
    resume: bool = False,
    baselines: bool = False,
    tensorboard: bool = False,
    report: Report = lambda event: None,
) -> Run:
    """Simulate a scenario with Flower and Ray in this process, and write its results.

    Args:
        folder: made if need be; must be empty unless ``resume``.
        resume: take over the pool and checkpoint of an earlier run of the same scenario.
        baselines: also train on the same data plain, together and each owner alone.
        tensorboard: also write the training's curves to ``folder/tensorboard``.

    Raises:
        FedencError: anything that keeps the run from its end; what was collected and trained so
            far stays in ``folder`` for ``resume``.
    """

    def perform(
        settled: Scenario, seen: ProviderView, given: Given | None, logged: Report
    ) -> Outcome:
        outcomes: list[Outcome] = []
        server_app = ServerApp()

        @server_app.main()
        def main(grid: Grid, context: Context) -> None:
            nodes = settled.clients.nodes
            with _curves(folder if tensorboard else None) as watch:
                provider = folder / PROVIDER
                outcomes.append(serve(grid, seen, nodes, provider, logged, given, watch))

        client_app = clients.app.make(functools.partial(host, settled))
        with engine.logs_in(folder / result.LOG), engine.ray_session(settled.engine.address):
            engine.simulate(server_app, client_app, settled)
        if not outcomes:
            raise EngineError(f"the engine ended before the server did; see {folder / result.LOG}")
        return outcomes[0]

    settled = settle(scenario)
    return record(settled, folder, perform, resume=resume, baselines=baselines, report=report)


def _curves(folder: Path | None) -> contextlib.AbstractContextManager[TensorBoard | None]:
    return contextlib.nullcontext() if folder is None else TensorBoard(folder / "tensorboard")


def record(
    scenario: Scenario,
    folder: Path,
    perform: Perform,
    *,
    resume: bool = False,
    baselines: bool = False,
    report: Report = lambda event: None,
) -> Run:
    """Check a settled scenario, have it performed, and write down what came of it."""
    check(scenario)
    if baselines and not scenario.uploads:
        raise ScenarioError(
            "--baselines train on what participants upload, and under transformation.answers = "
            "'third-party' they upload nothing; leave it out, or set it to 'central'"
        )
    with occupied(folder, scenario, resume):
        awaited = scenario.encryption.keyless and scenario.transformation.bundle is None
        if awaited:
            scenario = third_party.with_bundle(scenario, folder / THIRD_PARTY)
        if resume and (folder / result.RESULT).exists():
            return _finished(scenario, folder, baselines, report)
        logged = _logged(folder / result.LOG, report)
        if awaited:
            third_party.make(scenario, folder / THIRD_PARTY, logged)
        seen = view(scenario)
        outcome = perform(scenario, seen, third_party.given(scenario), logged)
        result.write(folder, scenario, outcome, result.build(scenario, seen, outcome))
        return _finished(scenario, folder, baselines, report)


def _finished(scenario: Scenario, folder: Path, baselines: bool, report: Report) -> Run:
    """A run that was complete already, with baselines if they are wanted now."""
    facts = json.loads((folder / result.RESULT).read_text())
    if baselines and "baselines" not in facts:
        facts["baselines"] = plain_training.measure(scenario, report)
        result.write_facts(folder, facts)
    return Run(folder, facts)


def host(scenario: Scenario, context: Context) -> Population:
    """The population that a client process simulates, made once a process."""
    return _population(scenario.model_dump_json(by_alias=True))


@functools.lru_cache(maxsize=2)
def _population(text: str) -> Population:
    return Population(Scenario.model_validate_json(text))


def _logged(path: Path, report: Report) -> Report:
    """Also write every tenth of a phase to the log."""
    last = ("", -1)

    def both(event: Event) -> None:
        nonlocal last
        report(event)
        mark = (event.phase, int(10 * event.done / max(event.total, 1e-9)))
        if mark != last:
            last = mark
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            with path.open("a", encoding="utf-8") as log:
                log.write(f"{stamp} {event.phase} {event.done:g}/{event.total:g} {event.text}\n")

    return both
