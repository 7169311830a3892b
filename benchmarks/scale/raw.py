"""Raw Ray: plain actors return the same bytes to the driver, which drops them. Nothing else."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.util import ActorPool

from clients.simulated import Population
from fedenc.scenario import Scenario
from fedenc.shard import Shard
from simulations import engine

Part = tuple[str, dict[str, npt.NDArray[Any]]]  # manifest and arrays of one shard


class Sender:
    """What a client process holds when nothing but Ray is between it and the driver."""

    def __init__(self, scenario: Scenario) -> None:
        self._population = Population(scenario)
        self._ready = _part(self._population.participant(0).upload())

    def ready(self) -> bool:
        """Answers once the process is warm."""
        return True

    def made(self, node: int) -> list[Part]:
        """Shards of all participants on a node, made now by the participants' own code."""
        hosted = self._population.hosted_by(node)
        return [_part(self._population.participant(i).upload()) for i in hosted]

    def premade(self, node: int) -> list[Part]:
        """As many bytes, made beforehand: every one a copy of its own."""
        manifest, arrays = self._ready
        hosted = self._population.hosted_by(node)
        return [(manifest, {k: np.copy(a) for k, a in arrays.items()}) for _ in hosted]


def measure(scenario: Scenario, *, premade: bool) -> dict[str, Any]:
    """Bring the shards of every participant to the driver, from warm actors.

    As many actors as the engine has client processes, with the same share of a CPU.

    Args:
        premade: move bytes made beforehand instead of making each shard.

    Returns:
        ``seconds`` until the last byte was there, ``startup`` before, ``bytes`` moved.
    """
    began = time.monotonic()
    with engine.ray_session(None):
        count = int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]
        actors: list[Any] = [
            ray.remote(Sender).options(num_cpus=1).remote(scenario) for _ in range(count)
        ]
        ray.get([actor.ready.remote() for actor in actors])
        start, cpu = time.monotonic(), time.process_time()
        total = participants = 0
        pool = ActorPool(actors)
        replies = pool.map_unordered(
            lambda actor, node: (actor.premade if premade else actor.made).remote(node),
            list(range(scenario.clients.nodes)),
        )
        for parts in replies:
            participants += len(parts)
            total += sum(a.nbytes for _, arrays in parts for a in arrays.values())
            del parts
        return {
            "seconds": time.monotonic() - start,
            "startup": start - began,
            "bytes": total,
            "participants": participants,
            "cpu_seconds": time.process_time() - cpu,
        }


def _part(shard: Shard) -> Part:
    return shard.manifest.to_json(), shard.arrays()
