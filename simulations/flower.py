"""The same two apps for ``flwr run``: scenario and overrides come from Flower's run configuration.

``scenario`` names a preset or a TOML file, ``set`` holds overrides separated by semicolons, ``out``
is the folder for results. The seed of the simulated keys never travels in the configuration, which
the provider's side sees: participants read it from their own machine.
"""

import functools
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

import clients.app
from clients.simulated import Population
from fedenc.errors import EngineError, ScenarioError
from fedenc.scenario import Scenario
from server.app import Event, Outcome, serve
from simulations import presets, run
from simulations.experiment import Experiment, OnEvent, prepare, settle
from simulations.run_folder import PROVIDER


def scenario_of(context: Context) -> tuple[str, Scenario]:
    """The scenario that a run configuration describes, and its short name.

    Raises:
        ScenarioError: it has problems, or carries the seed of the keys.
    """
    config = context.run_config
    text = str(config.get("set") or "")
    overrides = tuple(part.strip() for part in text.split(";") if part.strip())
    return _resolved(str(config.get("scenario") or presets.DEFAULT), overrides)


@functools.lru_cache(maxsize=2)
def _resolved(name: str, overrides: tuple[str, ...]) -> tuple[str, Scenario]:
    name, scenario = presets.resolve(name, overrides)
    if scenario.encryption.seed is not None:
        raise ScenarioError(
            "encryption.seed must not travel in Flower's run configuration, which the provider "
            f"sees; leave it out, and every machine uses its own ({presets.DEFAULT!r} does)"
        )
    if scenario.awaits_bundle:
        raise ScenarioError(
            "under `flwr run` participants need a transformation network that is there already; "
            "make one with `fedenc transformation train` and set transformation.bundle"
        )
    return name, scenario


def _host(context: Context) -> Population:
    """Participants check nothing: what the provider's machine offers is not theirs to know."""
    return _population(scenario_of(context)[1].model_dump_json(by_alias=True))


@functools.lru_cache(maxsize=2)
def _population(text: str) -> Population:
    return settle(Scenario.model_validate_json(text))


client_app = clients.app.make(_host, functools.partial(run.note_trace, None))
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the provider's side and write down the result."""
    name, scenario = scenario_of(context)
    experiment = prepare(scenario, name)
    for warning in experiment.warnings:
        print(f"fedenc: warning: {warning}", flush=True)
    nodes = experiment.scenario.clients.nodes
    out = context.run_config.get("out")
    folder = Path(str(out or f"runs/{experiment.name}-{time.strftime('%Y%m%d-%H%M%S')}"))

    def perform(experiment: Experiment, on_event: OnEvent) -> Outcome:
        seen, given = experiment.provider_view, experiment.given
        try:
            return serve(grid, seen, nodes, folder / PROVIDER, on_event, given)
        except EngineError as error:
            hint = f"the scenario needs --federation-config 'num-supernodes={nodes}'"
            raise EngineError(f"{error} ({hint})") from None

    run.record(experiment, folder, perform, on_event=_say)


def _say(event: Event) -> None:
    if event.done in (0, event.total):
        print(
            f"fedenc: {event.phase} {event.done:g}/{event.total:g} {event.text}".rstrip(),
            flush=True,
        )
