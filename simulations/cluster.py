"""What a run needs of every machine of an existing Ray cluster, looked at before anybody uploads.

A machine without the data would not fail the run: its client processes would lose whichever
participants Ray happens to place on them. So one task on each machine tells its versions, and where
participants run also its data and its cipher, and all must be as they are on the driver's machine.
"""

import hashlib
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clients.simulated import Population
from fedenc import provenance
from fedenc.data import Dataset
from fedenc.errors import EngineError, FedencError
from fedenc.protection import Context, Network
from fedenc.scenario import Scenario
from server.ray import RESOURCE

_PATIENCE = 600.0  # seconds: a machine may have to decode its data set first
_JOINING = 30.0  # seconds until all machines know of one that has just joined or left
_IMAGES = 1000  # of a data set that are compared, besides all labels
_SEED = "a public seed: keys that protect nothing but a test pattern"

Found = Mapping[str, Any]  # what a machine tells, by the names of :func:`look`


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster that is alive."""

    id: str  # Ray's
    address: str
    name: str
    cpus: int  # client processes that it can hold
    gpus: int
    trainer: bool  # whether it offers the trainer's resource

    def __str__(self) -> str:
        return f"{self.address} ({self.name})"


def machines() -> list[Machine]:
    """All machines of the cluster that are alive, by address. Needs an open session."""
    found = [
        Machine(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            name=node["NodeManagerHostname"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            trainer=RESOURCE in node["Resources"],
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    return sorted(found, key=lambda m: (m.address, m.id))


def hosts(limit: int | None) -> list[Machine]:
    """The machines on which participants run: all that have CPUs, or the first of them.

    Raises:
        EngineError: there are fewer than ``limit``.
    """
    found = [m for m in machines() if m.cpus]
    if limit is not None and limit > len(found):
        raise EngineError(
            f"engine.machines = {limit}, but {len(found)} machines of the Ray cluster have CPUs "
            "for participants; lower it, or start Ray with --num-cpus on more machines"
        )
    return found[:limit]


def check(
    scenario: Scenario, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> list[dict[str, Any]]:
    """Look at every machine; needs an open session.

    Args:
        on_progress: called with the number of machines that answered, and of all.

    Returns:
        The machines and their hardware, for the result.

    Raises:
        EngineError: what machines lack, which ones, and what to do.
        FedencError: the data or the cipher of the scenario is missing here.
    """
    public = scenario.model_copy(
        update={"encryption": scenario.encryption.model_copy(update={"seed": _SEED})}
    )
    shape = Population(public).dataset.shape
    request = (public.model_dump_json(by_alias=True), shape)
    expected = look(request)
    if "problem" in expected:
        raise EngineError(str(expected["problem"]))
    theirs = {machine.id for machine in hosts(scenario.engine.machines)}

    def ask(machine: Machine) -> Any:
        return _probe(machine).remote(request if machine.id in theirs else None)

    found = dict(_answers(machines(), ask, on_progress))
    if problems := _problems(expected, found):
        raise EngineError("; ".join(problems))
    return [
        {
            "address": machine.address,
            "name": machine.name,
            "cpus": machine.cpus if machine.id in theirs else 0,
            "gpus": machine.gpus,
            "trainer": machine.trainer,
            "hardware": told["hardware"],
        }
        for machine, told in sorted(found.items(), key=lambda item: item[0].address)
    ]


def look(request: tuple[str, tuple[int, int, int]] | None) -> dict[str, Any]:
    """What there is on this machine.

    Args:
        request: a scenario as JSON, with a seed that is not secret, and the shape (C, H, W) of its
            images; None: no participant runs here, and no data is needed.

    Returns:
        ``versions`` and ``hardware``; with a request also ``data`` and ``cipher``, digests of what
        they are (no cipher as long as its network is still to be trained). Or ``problem``: why
        there are none.
    """
    found: dict[str, Any] = {"versions": versions(), "hardware": provenance.hardware()}
    if request is None:
        return found
    text, shape = request
    try:
        population = Population(Scenario.model_validate_json(text))
        found["data"] = data_digest(population.dataset)
        if not population.scenario.awaits_bundle:
            found["cipher"] = cipher_digest(population, shape)
        return found
    except FedencError as error:
        return found | {"problem": str(error)}


def versions() -> dict[str, str]:
    """Versions of what decides a result, as far as machines must agree in them.

    Of Python the first two numbers; of the others all but the build (torch's ``+cpu`` and
    ``+cu130`` may meet).
    """
    found = {name: version.partition("+")[0] for name, version in provenance.versions().items()}
    return found | {"python": ".".join(platform.python_version_tuple()[:2])}


def data_digest(dataset: Dataset) -> str:
    """SHA-256 of classes, all labels, and images spread evenly over the data set."""
    digest = hashlib.sha256(repr(dataset.classes).encode())
    for split in (dataset.train, dataset.test):
        digest.update(repr(split.images.shape).encode())
        digest.update(np.asarray(split.labels, "<i8").tobytes())
        some = np.unique(np.linspace(0, len(split.labels) - 1, _IMAGES).astype(np.int64))
        digest.update(split.images[some].tobytes())
    return digest.hexdigest()


def cipher_digest(population: Population, shape: tuple[int, int, int]) -> str:
    """SHA-256 of the method's parameters and of what it makes of a test pattern.

    A network is told by its parameters alone, which hold a digest of its weights: what it makes of
    an image is rounded differently by different processors.
    """
    protection = population.protection(0)
    digest = hashlib.sha256(repr((protection.name, sorted(protection.params().items()))).encode())
    if not isinstance(protection, Network):
        pattern = (
            torch.arange(int(np.prod(shape))).remainder(251).to(torch.uint8).reshape(1, *shape)
        )
        made = protection.protect(pattern, Context("query", bytes(16), np.arange(1)))
        digest.update(made.numpy().tobytes())
    return digest.hexdigest()


def _probe(machine: Machine) -> Any:
    """A task for one machine. It asks for no CPU: others may hold all of them."""

    # Made here so that it travels by value, and can say that the machine lacks what it imports.
    def probe(request: Any) -> Any:
        try:
            from simulations.cluster import look

            return look(request)
        except ImportError as error:
            return {"missing": str(error)}

    strategy: Any = NodeAffinitySchedulingStrategy(machine.id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(probe)


def _answers(
    wanted: Sequence[Machine],
    ask: Callable[[Machine], Any],
    on_progress: Callable[[int, int], None],
) -> Iterator[tuple[Machine, Found]]:
    """What every machine tells, except those that leave the cluster meanwhile.

    The driver's machine learns a little later than Ray's list of machines who has joined, and who
    has left; until then tasks for these cannot be placed, and are tried again.
    """
    asked = {ask(machine): machine for machine in wanted}
    total, waiting, end = len(asked), list(asked), time.monotonic() + _JOINING
    while waiting:
        on_progress(total - len(waiting), total)
        ready, waiting = ray.wait(waiting, timeout=_PATIENCE)
        for reference in ready:
            try:
                yield asked[reference], ray.get(reference)
            except ray.exceptions.RayError as error:
                machine, early = asked[reference], time.monotonic() < end
                if early and isinstance(error, ray.exceptions.TaskUnschedulableError):
                    time.sleep(1)
                    if machine.id in {m.id for m in machines()}:
                        again = ask(machine)
                        asked[again] = machine
                        waiting.append(again)
                    continue
                reason = " ".join(str(error).split())[-300:]
                yield machine, {"lost": f"cannot run what Ray gives it: {reason}"}
        if not ready:
            lost = {"lost": f"did not answer within {_PATIENCE:g} s"}
            yield from ((asked[reference], lost) for reference in waiting)
            break
    on_progress(total, total)


def _problems(expected: Found, found: Mapping[Machine, Found]) -> list[str]:
    """What is wrong with which machines, each problem once."""
    named: dict[str, list[Machine]] = {}
    for machine, told in sorted(found.items(), key=lambda item: item[0].address):
        for problem in _lacks(expected, told):
            named.setdefault(problem, []).append(machine)
    return [
        f"{'machine' if len(who) == 1 else 'machines'} {', '.join(map(str, who))}: {problem}"
        for problem, who in named.items()
    ]


def _lacks(expected: Found, told: Found) -> Iterable[str]:
    if "lost" in told:
        yield f"{told['lost']}; see `ray status`, and restart Ray there or take the machine out"
        return
    if "missing" in told:
        yield (
            f"cannot import what fedenc needs ({told['missing']}); install there what is installed "
            "on the driver's machine (pip install -c constraints.txt . in fedenc's folder)"
        )
        return
    other = [
        f"{name} {told['versions'].get(name, 'is missing')} (expected {version})"
        for name, version in expected["versions"].items()
        if told["versions"].get(name) != version
    ]
    if other:
        yield (
            f"other versions than on the driver's machine: {', '.join(other)}; install the "
            "expected ones there"
        )
    if "problem" in told:
        yield (
            f"participants cannot run there: {told['problem']} (put it there under the same path "
            "as on the driver's machine, or start Ray there with --num-cpus=0)"
        )
    elif "data" in told:
        if told["data"] != expected["data"]:
            yield ("its data set is not the one on the driver's machine; copy the files anew")
        if told.get("cipher") != expected.get("cipher"):
            yield (
                "its cipher encrypts otherwise than on the driver's machine; install the same "
                "version of the package that the cipher comes from"
            )
