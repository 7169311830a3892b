"""Flower's backend for simulations on Ray, with a pool of client processes that have started.

Flower gives messages to as many Ray actors as the cluster has CPUs, whether or not Ray could place
them, puts actors that died back into the pool, and waits for all actors at the end. So a run never
ends if another program holds a CPU, and a dead actor fails the messages of healthy participants.
Here a message goes only to an actor that has started, a dead actor is replaced by a new one, and
nothing is waited for once the server is done.
"""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY
from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
from flwr.simulation.ray_transport.ray_actor import ClientAppActor, pool_size_from_resources
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedenc.errors import EngineError
from simulations.cluster import hosts

_ANYWHERE = "DEFAULT"  # Ray's name for it
_POLL = 0.05  # seconds between looks at actors that start
_PATIENCE = 0.5  # seconds between looks whether the server is done
_FAILED_STARTS = 10  # actors in a row that die before they have started, after which it is an error


class ClientProcesses(RayBackend):
    """Runs messages in Ray actors; a message waits until one is ready.

    A message during which its process dies is reported as failed and not tried again here: the
    server decides how often participants are asked.
    """

    def __init__(
        self, server_done: threading.Event, machines: int | None, backend_config: Any
    ) -> None:
        """Args:
        server_done: set when the server app has returned or failed.
        machines: of the cluster that hold the processes; None: all.
        """
        super().__init__(backend_config)
        self._server_done = server_done
        self._machines = machines
        self._lock = threading.Lock()
        self._size = 0
        self._places: dict[Any, Any] = {}  # actor -> Ray's strategy of placing it
        self._starting: dict[Any, Any] = {}  # future of an actor's start -> actor
        self._idle: list[Any] = []
        self._busy: list[Any] = []
        self._failed_starts = 0

    def build(self, app_fn: Callable[[], ClientApp]) -> None:
        """Ask Ray for one actor per CPU of the machines, without waiting for any."""
        packed: bytes = cloudpickle.dumps(app_fn)  # type: ignore[no-untyped-call]
        self.app_fn = functools.partial(_unpacked, packed)
        places: list[Any] = [_ANYWHERE] * pool_size_from_resources(self.client_resources)
        if self._machines is not None:
            # If the machine is lost, Ray may take another one.
            on = [
                (NodeAffinitySchedulingStrategy(m.id, soft=True), m) for m in hosts(self._machines)
            ]
            places = [strategy for strategy, machine in on for _ in range(machine.cpus)]
        self._size = len(places)
        for place in places:
            self._start(place)

    @property
    def num_workers(self) -> int:
        """Messages that may be under way at once: as many as actors are wanted."""
        return self._size

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """Run the client app on a message; returns its reply and the updated context.

        Raises:
            EngineError: the server was done first.
            RayError: the process died, or the app raised.
        """
        node = str(context.node_config[PARTITION_ID_KEY])
        while True:
            actor = self._take()
            # An actor works on one call after another. If it dies, this shows whether it died
            # during the message or before.
            reached = actor.__ray_ready__.remote()
            future = actor.run.remote(self.app_fn, message, node, context)
            try:
                _, reply, updated = self._result(future)
            except (ray.exceptions.RayTaskError, EngineError):  # what the app or the server raised
                self._give_back(actor)
                raise
            except ray.exceptions.RayError:  # it died, or Ray ended it for want of memory
                self._replace(actor)
                if _succeeded(reached):
                    raise
            else:
                self._give_back(actor)
                return reply, updated

    def terminate(self) -> None:
        """End all actors, also those that Ray has not placed. Ray itself ends with its session."""
        with self._lock:
            for actor in (*self._starting.values(), *self._idle, *self._busy):
                ray.kill(actor)

    def _start(self, place: Any) -> None:
        options = self.client_resources | {"scheduling_strategy": place}
        actor = ClientAppActor.options(**options).remote()  # type: ignore[attr-defined]
        self._places[actor] = place
        self._starting[actor.__ray_ready__.remote()] = actor

    def _take(self) -> Any:
        """Wait for an actor that is ready, and prefer the one that worked last."""
        while not self._server_done.is_set():
            with self._lock:
                self._admit()
                if self._idle:
                    self._busy.append(self._idle.pop())
                    return self._busy[-1]
            time.sleep(_POLL)
        raise EngineError("the server was done before the message found a client process")

    def _admit(self) -> None:
        """Add actors that have started to the pool, and replace those that failed to start."""
        if not self._starting:
            return
        waiting = list(self._starting)
        for future in ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]:
            actor = self._starting.pop(future)
            try:
                ray.get(future)
            except ray.exceptions.RayError:
                self._start(self._places.pop(actor))
                self._failed_starts += 1
                if self._failed_starts > _FAILED_STARTS:
                    raise
            else:
                self._failed_starts = 0
                self._idle.append(actor)

    def _result(self, future: Any) -> Any:
        while not ray.wait([future], timeout=_PATIENCE)[0]:
            if self._server_done.is_set():
                raise EngineError("the server was done before the client app")
        return ray.get(future)

    def _give_back(self, actor: Any) -> None:
        with self._lock:
            self._busy.remove(actor)
            self._idle.append(actor)

    def _replace(self, actor: Any) -> None:
        ray.kill(actor)  # if it is only unreachable, it must not keep its CPU
        with self._lock:
            self._busy.remove(actor)
            self._start(self._places.pop(actor))


@functools.lru_cache(maxsize=1)
def _unpacked(app_fn: bytes) -> ClientApp:
    """The client app, pickled and unpickled once and not for every message."""
    app: ClientApp = cloudpickle.loads(app_fn)()
    return app


def _succeeded(future: Any) -> bool:
    try:
        ray.get(future)
    except ray.exceptions.RayError:
        return False
    return True
