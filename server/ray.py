"""All that is Ray's: what a cluster offers, what trainers ask of it, and waiting for answers."""

import math
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedenc.errors import EngineError, TrainingError
from fedenc.scenario.sections import Server

RESOURCE = "trainer"  # custom Ray resource that names the machine to train on
_RAY_TIMEOUT = 60.0  # seconds for Ray itself to start
_CALL_TIMEOUT = 600.0  # seconds for one chunk, prediction or export


def fetch(ref: Any, timeout: float = _CALL_TIMEOUT) -> Any:
    """Wait for an object of Ray's, or a list of them, such as what an actor returns.

    Raises:
        TrainingError: the actor was lost, or raised this.
        EngineError: it did not answer in time, or raised this.
    """
    try:
        return ray.get(ref, timeout=timeout)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, (TrainingError, EngineError)) else error from None
    except ray.exceptions.GetTimeoutError:
        raise EngineError(
            f"the trainer did not answer within {timeout:g} s; check with `ray status` that a "
            "node offers what server.gpus asks for"
        ) from None
    except ray.exceptions.RayError as error:  # it died, or Ray ended it for want of memory
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"the trainer was lost ({reason}); run again with --resume") from None


def cluster_resources() -> Mapping[str, float]:
    """What all nodes of the Ray cluster offer together.

    Flower's simulation engine starts Ray beside the server, which therefore may have to wait.

    Raises:
        EngineError: Ray did not start in time.
    """
    end = time.monotonic() + _RAY_TIMEOUT
    # Not by asking for the resources: a Ray that starts tells them before it takes calls.
    while not ray.is_initialized():
        if time.monotonic() > end:
            raise EngineError(f"Ray did not start within {_RAY_TIMEOUT:g} s")
        time.sleep(0.05)
    found: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def client_processes() -> int:
    """Processes that do the work of all nodes of a simulation: one for every CPU of the cluster.

    Raises:
        EngineError: Ray did not start in time.
    """
    return max(1, int(cluster_resources().get("CPU", 1)))


def gpus_per_worker(server: Server, cluster: Mapping[str, float]) -> int:
    """GPUs to ask Ray for, for each worker: none or one.

    Raises:
        EngineError: the cluster has fewer than are wanted, or too few for every worker.
    """
    available = int(cluster.get("GPU", 0))
    wanted = min(1, available) if server.gpus == "auto" else server.gpus
    if wanted * server.workers > available:
        raise EngineError(
            f"server.gpus = {server.gpus} and server.workers = {server.workers}, but the Ray "
            f"cluster has {available} GPUs and each worker needs its own; lower server.workers or "
            "set server.gpus to 0"
        )
    return wanted


def actor_options(server: Server, cluster: Mapping[str, float]) -> dict[str, Any]:
    """Ray's options for one actor that trains or answers queries.

    It asks for no CPU, because Flower's client actors hold all of them.

    Raises:
        EngineError: the cluster has too few GPUs.
    """
    return {
        "num_cpus": 0,
        "num_gpus": gpus_per_worker(server, cluster),
        "resources": {RESOURCE: 1.0} if cluster.get(RESOURCE) else None,
    }


def worker_resources(server: Server, cluster: Mapping[str, float]) -> dict[str, float]:
    """What each of several workers asks Ray for.

    No CPU either, but one byte of memory: Ray Train cannot place what asks for nothing.

    Raises:
        EngineError: the cluster has a GPU, but not one for each worker.
    """
    resources = {"memory": 1.0}
    if gpus_per_worker(server, cluster):
        resources["GPU"] = 1.0
    if offered := int(cluster.get(RESOURCE, 0)):
        # Machines that offer one trainer each may have to hold several workers.
        resources[RESOURCE] = 1 / math.ceil(server.workers / offered)
    return resources


def on_this_machine() -> NodeAffinitySchedulingStrategy:
    """Placement on the machine of the caller, and nowhere else."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
