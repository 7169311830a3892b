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
from fedenc.errors import EngineError, ScenarioError
from server.app import Event, Outcome, serve
from simulations import presets, run
from simulations.experiment import Experiment, OnEvent, prepare


def experiment_of(context: Context) -> Experiment:
    """The experiment that a run configuration describes, prepared once in a process.

    Raises:
        ScenarioError: it has problems, or carries the seed of the keys.
    """
    config = context.run_config
    text = str(config.get("set") or "")
    overrides = tuple(part.strip() for part in text.split(";") if part.strip())
    return _prepared(str(config.get("scenario") or presets.DEFAULT), overrides)


@functools.lru_cache(maxsize=2)
def _prepared(name: str, overrides: tuple[str, ...]) -> Experiment:
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
    return prepare(scenario, name)


def _host(context: Context) -> run.SimulatedHost:
    return run.SimulatedHost(experiment_of(context).population)


client_app = clients.app.make(_host)
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the provider's side and write down the result."""
    experiment = experiment_of(context)
    nodes = experiment.scenario.clients.nodes
    out = context.run_config.get("out")
    folder = Path(str(out or f"runs/{experiment.name}-{time.strftime('%Y%m%d-%H%M%S')}"))

    def perform(experiment: Experiment, on_event: OnEvent) -> Outcome:
        seen, given = experiment.provider_view, experiment.given
        try:
            return serve(grid, seen, nodes, folder / run.PROVIDER, on_event, given)
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
