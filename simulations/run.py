"""One simulation from a scenario to a folder of results."""

import contextlib
import fcntl
import functools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context

import clients.app
import server.app
from clients.simulated import Population
from fedenc import models
from fedenc.data import NAMES
from fedenc.data.augment import AUGMENTATIONS
from fedenc.errors import CipherError, DataError, EngineError, ScenarioError
from fedenc.files import write_atomically
from fedenc.scenario import PLAIN, ProviderView, Scenario
from server.app import Event, Outcome
from simulations import baselines as plain_training
from simulations import engine, result
from simulations.secret import simulation_seed

SCENARIO = "scenario.json"
PROVIDER = "provider"  # the provider's own folder inside a run's: pool and checkpoint
Report = Callable[[Event], None]


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    result: dict[str, Any]


def settle(scenario: Scenario) -> Scenario:
    """Fill in what a run needs and a scenario may leave open: the seed of the simulated keys."""
    if scenario.encryption.seed is not None:
        return scenario
    encryption = scenario.encryption.model_copy(update={"seed": simulation_seed()})
    return scenario.model_copy(update={"encryption": encryption})


def view(scenario: Scenario) -> ProviderView:
    """What the provider is told, and a check of all that the scenario names.

    Raises:
        ScenarioError: with every problem found: unknown cipher, model or data set, parameters that
            do not fit, more participants than images, a GPU that is not there.
        DataError: the data cannot be read.
    """
    problems = engine.check(scenario)
    if scenario.data.name not in NAMES:
        problems.append(f"data.name = {scenario.data.name!r}; known are {', '.join(NAMES)}")
    if scenario.model.name not in models.names():
        known = ", ".join(models.names())
        problems.append(f"model.name = {scenario.model.name!r}; known are {known}")
    if scenario.augmentation.method not in AUGMENTATIONS:
        known = ", ".join(AUGMENTATIONS)
        problems.append(
            f"augmentation.method = {scenario.augmentation.method!r}; known are {known}"
        )
    population = Population(scenario)
    try:
        cipher = population.cipher
    except CipherError as error:
        problems.append(f"encryption: {error}")
    if problems:
        raise ScenarioError(problems)
    dataset = population.dataset
    original: tuple[int, int, int] = tuple(map(int, dataset.train.images.shape[1:]))  # type: ignore[assignment]
    try:
        population.partitions  # noqa: B018  (finds more participants than images)
        shape = cipher.output_shape(*original)
    except (DataError, CipherError) as error:
        raise ScenarioError(str(error)) from None
    if shape != original and (scenario.clients.plain_fraction or PLAIN in scenario.conditions()):
        raise ScenarioError(
            f"cipher {cipher.name} turns {original} images into {shape}, so one model cannot take "
            "both: leave 'plain' out of inference.queries and set clients.plain_fraction to 0"
        )
    return ProviderView(
        scenario_hash=scenario.hash(),
        seed=scenario.seed,
        participants=scenario.clients.count,
        outsiders=scenario.clients.query_only,
        classes=len(dataset.classes),
        shape=shape,
        cipher=cipher.name,
        cipher_params=dict(cipher.params()),
        plain_uploads=bool(population.plain),
        views=scenario.encryption.views,
        augmentation=scenario.augmentation,
        model=scenario.model,
        training=scenario.training,
        conditions=scenario.conditions(),
        server=scenario.server,
        quorum=scenario.quorum(),
    )


def simulate(
    scenario: Scenario,
    folder: Path,
    *,
    resume: bool = False,
    baselines: bool = False,
    report: Report = lambda event: None,
) -> Run:
    """Run a scenario and write its results into ``folder``.

    Args:
        folder: made if need be; must be empty unless ``resume``.
        resume: take over the pool and checkpoint of an earlier run of the same scenario.
        baselines: also train on the same data plain, together and each owner alone.

    Raises:
        FedencError: anything that keeps the run from its end; what was collected and trained so
            far stays in ``folder`` for ``resume``.
    """
    scenario = settle(scenario)
    seen_by_provider = view(scenario)
    with _occupied(folder, scenario, resume):
        if resume and (folder / result.RESULT).exists():
            return Run(folder, json.loads((folder / result.RESULT).read_text()))
        outcome = _run_apps(scenario, seen_by_provider, folder, report)
        extra = plain_training.measure(scenario, report) if baselines else None
        facts = result.build(scenario, outcome, extra)
        result.write(folder, scenario, outcome, facts)
    return Run(folder, facts)


def _run_apps(
    scenario: Scenario, seen_by_provider: ProviderView, folder: Path, report: Report
) -> Outcome:
    outcomes: list[Outcome] = []
    logged = _logged(folder / result.LOG, report)
    server_app = server.app.make(
        view_of=lambda context: seen_by_provider,
        nodes_of=lambda context: scenario.clients.nodes,
        folder=folder / PROVIDER,
        report=logged,
        done=outcomes.append,
    )
    client_app = clients.app.make(functools.partial(_host, scenario))
    handler = engine.redirect_logs(folder / result.LOG)
    try:
        with engine.ray_session(scenario.engine.address):
            engine.simulate(server_app, client_app, scenario)
    finally:
        handler.close()
    if not outcomes:
        raise EngineError("the engine ended before the server was done; see the log")
    return outcomes[0]


def _host(scenario: Scenario, context: Context) -> Population:
    """The population a client process simulates. Rebuilt once a process, not once a message."""
    return _population(scenario.model_dump_json(by_alias=True))


@functools.lru_cache(maxsize=2)
def _population(text: str) -> Population:
    return Population(Scenario.model_validate_json(text))


def _logged(path: Path, report: Report) -> Report:
    """Also write each whole step of progress to the log."""
    last: list[tuple[str, int]] = [("", -1)]

    def both(event: Event) -> None:
        report(event)
        mark = (event.phase, int(10 * event.done / max(event.total, 1e-9)))
        if mark != last[0]:
            last[0] = mark
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            with path.open("a", encoding="utf-8") as log:
                log.write(f"{stamp} {event.phase} {event.done:g}/{event.total:g} {event.text}\n")

    return both


@contextlib.contextmanager
def _occupied(folder: Path, scenario: Scenario, resume: bool) -> Iterator[None]:
    """Make the folder this run's alone.

    Raises:
        ScenarioError: it holds another run, or another scenario's.
        EngineError: another process is running there.
    """
    recorded = folder / SCENARIO
    if folder.exists() and not folder.is_dir():
        raise ScenarioError(f"--out {folder} is a file; name a folder")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise ScenarioError(f"{folder} is not empty; name another folder or use --resume")
    if resume and recorded.exists():
        _same_scenario(json.loads(recorded.read_text()), scenario, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EngineError(f"another run is going on in {folder}; wait for it to end") from None
        write_atomically(recorded, json.dumps(scenario.dump(), indent=2).encode() + b"\n")
        recorded.chmod(0o600)  # it holds the seed of the simulated keys
        yield


def _same_scenario(old: dict[str, Any], scenario: Scenario, folder: Path) -> None:
    """Refuse to go on with another scenario's uploads."""
    new = scenario.dump()
    flat_old, flat_new = _flat(old), _flat(new)
    different = sorted(
        key
        for key in flat_old.keys() | flat_new.keys()
        if flat_old.get(key) != flat_new.get(key)
        and not re.match(r"engine\.|clients\.per_node", key)
    )
    if different:
        shown = "; ".join(
            f"{k}: {flat_old.get(k)!r} then, {flat_new.get(k)!r} now"
            for k in different
            if k != "encryption.seed"
        )
        raise ScenarioError(
            f"{folder} was begun under another scenario ({shown or 'other keys'}); resume with "
            "the same one, or start in another folder"
        )


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested sections as ``section.key``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key != "options":
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat
