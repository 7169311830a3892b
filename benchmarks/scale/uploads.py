"""The upload phase as a run performs it: the real engine, apps, checks and pool."""

import functools
import os
import time
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

import clients.app
from benchmarks.scale.memory import peak_resident, resident
from fedenc.errors import EngineError
from fedenc.scenario import Scenario
from fedenc.wire import pack, unpack_facts
from server.collector import Roster
from server.exchange import Exchange, Request, window_of
from server.phases.upload import collect_uploads
from server.pool import PoolWriter
from server.ray import client_processes
from simulations import engine
from simulations.experiment import prepare
from simulations.run import host

_WARM = "warm"
_DWELL = 0.3  # seconds a warm-up message keeps its process, so that the next finds another one
_ROUNDS = 50  # of warm-up messages, at most


def measure(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Upload everything into a pool in ``folder``, from warm client processes.

    Returns:
        ``seconds`` of the upload phase up to the last byte on disk, ``startup`` before it, the
        ``bytes`` stored, the driver's ``cpu_seconds`` in the phase, its resident memory before it
        (``rss_before``) and its highest of all (``rss_peak``), in bytes.
    """
    began = time.monotonic()
    seen = prepare(scenario).provider_view
    measured: dict[str, Any] = {}
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        nodes = _nodes(grid, scenario.clients.nodes)
        _warm_up(grid, nodes)
        pool = PoolWriter(folder / "pool")
        before, cpu, start = resident(), time.process_time(), time.monotonic()
        exchange = Exchange(grid, seen.server.deadline, window_of(client_processes()))
        roster = Roster(nodes, seen.participants)
        collect_uploads(exchange, roster, pool, seen, lambda done: None)
        pool.close()  # brings the rest to disk, which is part of an upload
        measured.update(
            seconds=time.monotonic() - start,
            startup=start - began,
            bytes=pool.nbytes,
            participants=len(pool),
            cpu_seconds=time.process_time() - cpu,
            rss_before=before,
            rss_peak=peak_resident(),
        )

    with engine.logs_in(folder / "log.txt"), engine.ray_session(None):
        engine.simulate(server_app, _client_app(scenario), scenario)
    return measured


def _client_app(scenario: Scenario) -> ClientApp:
    """The participants' own app, with one more message that makes a process ready."""
    population = functools.partial(host, scenario)
    app = clients.app.make(population, lambda i, error: None)

    @app.query(_WARM)
    def warm(message: Message, context: Context) -> Message:
        population(context).participant(0).upload()
        time.sleep(_DWELL)
        return Message(pack({"process": os.getpid()}), reply_to=message)

    return app


def _nodes(grid: Grid, count: int) -> tuple[int, ...]:
    while len(nodes := tuple(grid.get_node_ids())) < count:
        time.sleep(0.05)
    return tuple(sorted(nodes))


def _warm_up(grid: Grid, nodes: tuple[int, ...]) -> None:
    """Have every client process load the data and make one upload.

    One that dies as it starts is asked again, as a run would do.
    """
    processes = client_processes()
    ready, reason = set[Any](), "no reason given"
    for _ in range(_ROUNDS):
        requests = [
            Request(nodes[i % len(nodes)], f"query.{_WARM}", pack({}), ()) for i in range(processes)
        ]
        for answers in Exchange(grid, 600.0).ask(requests):
            for answer in answers:
                if answer.content is None:
                    reason = answer.reason
                else:
                    ready.add(unpack_facts(answer.content)["process"])
        if len(ready) >= processes:
            return
    raise EngineError(f"{len(ready)} of {processes} client processes could be warmed up: {reason}")
