"""Running a study's cells, several at a time: Ray places them, and each is a complete simulation.

An outer Ray only schedules. Each of its tasks starts one ``fedenc simulate`` as a process of its
own with a private Ray in it, limited to the task's CPUs: two simulations in one Ray would wait for
each other's client processes. Runs that join a cluster themselves are placed here, one after
another. A run's folder decides what is left to do: with ``result.json`` in it
it is finished, without it is continued. A transformation network that several runs need is trained
once, before them.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedenc.errors import EngineError
from fedenc.files import write_atomically
from fedenc.scenario import Scenario
from simulations import attack, engine, interrupts, result
from simulations.run_folder import OUTPUT as _OUTPUT
from simulations.study.design import Cell

Status = Literal["queued", "running", "done", "failed"]
RUNS, BUNDLES = "runs", "bundles"  # folders in a study's
ATTACKS = "attacks"  # folder in a run's, where the study attacks it
_RETURNED = (
    *(result.RESULT, result.CLIENTS, result.LOG, _OUTPUT, f"{ATTACKS}/{attack.FACTS}"),
    *(f"{ATTACKS}/{attack.IMAGES}", f"{ATTACKS}/pictures/*.png"),
)
_POLL = 1.0  # seconds
_STORE = 500  # MB of shared memory for each run's own Ray


@dataclass(frozen=True)
class Share:
    """What each run gets of the machine or cluster."""

    at_once: int
    cpus: int
    gpus: float  # a fraction where several runs share one
    directory: str  # where relative paths start


@dataclass(frozen=True)
class Update:
    """News of one cell."""

    cell: Cell
    status: Status
    seconds: float = 0.0
    text: str = ""  # what is going on, or why it failed


def share(at_once: int | None, machines: Sequence[tuple[int, int]]) -> Share:
    """Divide CPUs and GPUs among runs: by default as many runs at once as there are GPUs, and
    without GPUs one for every four CPUs, since a training slows down beside another.

    Args:
        at_once: runs at a time; None: the default, and no more CPUs for a run than one machine has.
        machines: CPUs and GPUs of each. All that a run gets is of one machine.

    Raises:
        EngineError: more runs at once than CPUs, or a run for which no machine is large enough: it
            would wait for ever.
    """
    cpus, gpus = (sum(amounts) for amounts in zip(*machines, strict=True))
    wanted = at_once or gpus or max(1, cpus // 4)
    if wanted > cpus:
        raise EngineError(f"--at-once {wanted} is more than the {cpus} CPUs there are; name fewer")
    each, gpu = cpus // wanted, min(1, gpus / wanted)
    room = max((c for c, g in machines if g >= gpu), default=0)
    if at_once is None:
        each = min(each, room)
    if not 0 < each <= room:
        raise EngineError(
            f"{wanted} at once, each run would need {max(each, 1)} CPUs and {gpu:g} GPUs of one "
            f"machine, but no machine of the cluster has more than {room} CPUs and so many GPUs; "
            "name more by --at-once, or start Ray with more CPUs on the machines with GPUs"
        )
    return Share(wanted, each, gpu, str(Path.cwd()))


def finished(folder: Path, cell: Cell) -> bool:
    """Whether a cell's run is complete, and attacked if it is to be."""
    return (folder / RUNS / cell.id / result.RESULT).exists() and not unattacked(folder, cell)


def unattacked(folder: Path, cell: Cell) -> bool:
    """Whether a cell's run is complete, but the attacks on it are not."""
    own = folder / RUNS / cell.id
    missing = cell.attacks is not None and not (own / ATTACKS / attack.FACTS).exists()
    return missing and (own / result.RESULT).exists()


def run(
    cells: Sequence[Cell], folder: Path, *, address: str | None, at_once: int | None
) -> Iterator[Update]:
    """Run what is not finished, and say what happens.

    Args:
        folder: the study's.
        address: of a Ray cluster; None: this machine.
        at_once: how many runs at a time; None: see :func:`share`.

    Raises:
        EngineError: Ray cannot start or be reached, ``at_once`` does not fit, or machines of the
            cluster lack what the runs need.
    """
    todo = [cell for cell in cells if not finished(folder, cell)]
    if not todo:
        return
    if joined := {c.scenario.engine.address for c in todo} - {None}:
        if address is not None or (at_once or 1) > 1:
            raise EngineError(
                "runs that join a Ray cluster themselves (engine.address) take all of it, one "
                "after another: leave out --address and --at-once"
            )
        at_once = 1
    for own in joined:
        with engine.ray_session(own):
            _check_machines([c.scenario for c in todo if c.scenario.engine.address == own])
    with engine.ray_session(address, object_store=100):
        import ray

        interrupts.reinstall()
        from simulations import cluster

        each = share(at_once, [(m.cpus, m.gpus) for m in cluster.machines()])
        if address is not None:
            _check_machines([cell.scenario for cell in todo])
        place = ray.remote(num_cpus=each.cpus, num_gpus=each.gpus, max_calls=1, max_retries=1)
        simulate: Any = place(_simulate)
        train = place(_train)
        needed = {bundle(cell) for cell in todo}
        shared = {
            key: train.remote(_dumped(cell), _path(folder / BUNDLES / key), each)
            for key, cell in _shared(cells).items()
            if key in needed
        }
        waiting = {}
        for cell in todo:
            # A run whose network is still being trained starts when that is done.
            network = shared.get(bundle(cell) or "")
            own = _path(folder / RUNS / cell.id)
            plan = () if cell.attacks is None else _attack(cell)
            waiting[simulate.remote(_dumped(cell), own, each, plan, network)] = cell
            yield Update(cell, "queued")
        yield from _follow(waiting, folder)


def _check_machines(scenarios: Sequence[Scenario]) -> None:
    """See that every machine has what these runs need; once for each need."""
    from simulations import cluster

    needs = {
        repr((s.data, s.encryption, s.transformation, s.engine.machines)): s for s in scenarios
    }
    for scenario in needs.values():
        cluster.check(scenario)


def bundle(cell: Cell) -> str | None:
    """Names the transformation network that a run would train; None if it would not."""
    if not cell.scenario.awaits_bundle:
        return None
    values = cell.scenario.dump(secret=False)
    decisive = [values["seed"], values["data"], values["transformation"]]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def _shared(cells: Sequence[Cell]) -> dict[str, Cell]:
    """Networks that several runs would train, each with one of these runs."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if key := bundle(cell):
            found.setdefault(key, []).append(cell)
    return {key: group[0] for key, group in found.items() if len(group) > 1}


def _attack(cell: Cell) -> tuple[str, ...]:
    """Options of ``fedenc attack``."""
    plan = cell.attacks
    assert plan is not None
    counts = ("--images", str(plan.images), "--public", str(plan.public))
    return ("--attacks", plan.names, *counts, "--seed", str(cell.scenario.seed))


def _dumped(cell: Cell) -> str:
    return json.dumps(cell.scenario.dump())


def _path(folder: Path) -> str:
    return str(folder.resolve())


def _follow(waiting: dict[Any, Cell], folder: Path) -> Iterator[Update]:
    """Updates of all runs until the last has ended; an interruption ends them all."""
    import ray

    started: dict[str, float] = {}
    try:
        while waiting:
            ended, _ = ray.wait(list(waiting), timeout=_POLL)
            for reference in ended:
                cell = waiting.pop(reference)
                seconds = time.monotonic() - started.pop(cell.id, time.monotonic())
                yield _outcome(cell, folder, reference, seconds)
            for cell in waiting.values():
                log = folder / RUNS / cell.id / result.LOG
                if cell.id not in started and (log.parent / _OUTPUT).exists():
                    started[cell.id] = time.monotonic()
                if cell.id in started:
                    seconds = time.monotonic() - started[cell.id]
                    yield Update(cell, "running", seconds, _last_line(log))
    finally:
        for reference in waiting:
            ray.cancel(reference)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=20)


def _outcome(cell: Cell, folder: Path, reference: Any, seconds: float) -> Update:
    import ray

    own = folder / RUNS / cell.id
    try:
        code, files = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Update(cell, "failed", seconds, " ".join(str(error).split())[-300:])
    for name, content in files.items():
        if not (own / name).exists():  # it ran on another machine
            write_atomically(own / name, content, mode=0o600)
    if code == 0 and finished(folder, cell):
        return Update(cell, "done", seconds)
    return Update(cell, "failed", seconds, why(own) or f"exit code {code}")


def why(folder: Path) -> str:
    """The reason that a run gave for its failure; empty if it gave none."""
    try:
        lines = (folder / _OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = [i for i, line in enumerate(lines) if line.startswith("fedenc:")]
    return " ".join(line.strip() for line in lines[said[-1] :]) if said else ""


def _last_line(log: Path) -> str:
    """The last line of a run's log, without its time."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 500))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1][20:] if lines else ""


def _simulate(
    scenario: str, folder: str, share: Share, plan: tuple[str, ...], network: str | None
) -> tuple[int, dict[str, bytes]]:
    """One run, in a process of its own, somewhere in the cluster: its exit code, and its files.

    Args:
        plan: how it is to be attacked when it has finished; nothing: not at all.
        network: the folder of a bundle that was trained for several runs.
    """
    own, values = Path(folder), json.loads(scenario)
    if values["engine"]["address"] is None:  # else it runs on that cluster
        values["engine"] = {"cpus": share.cpus, "object_store": _STORE}
        values["server"]["threads"] = values["server"]["threads"] or share.cpus
    if network is not None:
        values["transformation"]["bundle"] = network
    code = 0
    if not (own / result.RESULT).exists():
        code = _fedenc(own, values, share, "simulate", "{scenario}", "--out", folder, "--resume")
    if plan and not code:
        code = _fedenc(own, values, share, "attack", folder, *plan)
    paths = [path for pattern in _RETURNED for path in own.glob(pattern)]
    return code, {str(path.relative_to(own)): path.read_bytes() for path in paths}


def _train(scenario: str, folder: str, share: Share) -> str:
    """The folder of a trained bundle. EngineError: why it could not be trained."""
    own = Path(folder)
    command = ("transformation", "train", folder, "{scenario}")
    if _fedenc(own, json.loads(scenario), share, *command):
        raise EngineError(f"the shared transformation network was not trained: {why(own)}")
    return folder


def _fedenc(own: Path, values: dict[str, Any], share: Share, *command: str) -> int:
    """A command in a process of its own, with its output beside its results; its exit code."""
    scenario = own.with_name(f"{own.name}.json")
    write_atomically(scenario, json.dumps(values).encode(), mode=0o600)
    words = [str(scenario) if word == "{scenario}" else word for word in command]
    own.mkdir(parents=True, exist_ok=True)
    with (own / _OUTPUT).open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "simulations.cli", *words],
            cwd=share.directory,
            env=_environment(os.environ, share.gpus),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            return child.wait()
        except BaseException:  # cancelled
            child.terminate()
            child.wait(timeout=15)
            raise


def _environment(inherited: Mapping[str, str], gpus: float) -> dict[str, str]:
    """Without what would make the run join this Ray, and without GPUs that it did not get."""
    root = str(Path(__file__).resolve().parents[2])
    found = {k: v for k, v in inherited.items() if not k.startswith("RAY_")}
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [root, found.get("PYTHONPATH")]))
    if not gpus:
        found["CUDA_VISIBLE_DEVICES"] = ""
    return found
