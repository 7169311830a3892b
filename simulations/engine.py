"""Everything that touches Flower's and Ray's engines, but for the client processes of
:mod:`simulations.backend`, so that they can be changed in one place.

Both apps run in Flower's simulation on a Ray backend. ``run_simulation`` is deprecated but the only
route to a backend of our own, which is needed for runs that end and lose nobody who is well.
"""

import functools
import logging
import os
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from fedenc import threads
from fedenc.errors import EngineError, FedencError
from fedenc.scenario import Scenario

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("fedenc", "clients", "server", "simulations")
_KNOCK_TIMEOUT = 10.0  # seconds
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Messages of workers and raylets: failures reach us as exceptions and are reported once.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's default is 15: if anything else runs, the trainer's threads then wait for each other
    # most of the time.
    "RAY_worker_niceness": "0",
}


def quiet() -> None:
    """Switch off telemetry, update checks and most messages of Flower and Ray, and let
    threads that wait for each other sleep soon. Call it before they are imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    threads.spin_briefly()


def has_gpu() -> bool:
    """Whether torch can use a GPU on this machine."""
    import torch

    return torch.cuda.is_available()


def check(scenario: Scenario) -> list[str]:
    """What this machine cannot give, found before anything is started."""
    if scenario.engine.address is None and scenario.server.gpus == 1 and not has_gpu():
        return [
            "server.gpus = 1, but torch finds no GPU on this machine; set server.gpus to 0 or "
            "auto, or give the address of a Ray cluster that has one (engine.address)"
        ]
    return []


@contextmanager
def ray_session(
    address: str | None, *, cpus: int | None = None, object_store: int | None = None
) -> Iterator[None]:
    """Join a Ray cluster, or start one on this machine, for the time of a run.

    Args:
        address: of a cluster that is there; None: start one.
        cpus: of one that is started; None: all.
        object_store: MB that its processes share; None: Ray's default.

    Raises:
        EngineError: there is no cluster at ``address``, or Ray cannot start.
    """
    quiet()
    import ray

    if address is not None and ":" in address:
        _knock(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    ours = not ray.is_initialized()
    try:
        if ours:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                if address is None:
                    store = object_store and object_store * 1_000_000
                    share = {"num_cpus": cpus, "object_store_memory": store}
                    _start_ray(options | share)
                else:
                    ray.init(address=address, runtime_env=_shipped(), **options)
    except Exception as error:  # Ray raises bare ones too, if it takes too long to start
        where, advice = "start on this machine", "see that it is not too busy, and try again"
        if address is not None:
            where, advice = f"be reached at {address!r}", "check engine.address with `ray status`"
        reason = " ".join(str(error).split())[:200]
        raise EngineError(f"Ray cannot {where}: {reason}; {advice}") from None
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _shipped() -> dict[str, Any]:
    """What processes on other machines get from this one: our code and some settings.

    So all machines run the same code, and it need not be installed on them.
    """
    settings = {n: os.environ[n] for n in (*_QUIET, *threads.WAITING) if n in os.environ}
    return {"env_vars": settings, "py_modules": [str(_ROOT / name) for name in _PACKAGES]}


def _start_ray(options: dict[str, Any]) -> None:
    """Start Ray on this machine, without what a single run has no use for.

    Its processes inherit this one's environment. Given to Ray as a runtime environment, it would
    cost every process a second start: those that Ray starts ahead have another one.
    """
    import ray
    from ray._private.node import Node

    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    # They scale a cluster, show it in a browser, and copy logs to the driver.
    unused = ("start_monitor", "start_api_server", "start_log_monitor")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, PYTHONPATH=path))
        for name in filter(Node.__dict__.__contains__, unused):
            stack.enter_context(mock.patch.object(Node, name))
        ray.init(address="local", include_dashboard=False, **options)


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_KNOCK_TIMEOUT):
            pass
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no Ray cluster answers at engine.address = {address!r} ({error}); expected "
            "host:port of its head as `ray start --head` printed it, or auto"
        ) from None


def simulate(server_app: "ServerApp", client_app: "ClientApp", scenario: Scenario) -> None:
    """Run both apps to the end of the server's. Needs an open :func:`ray_session`.

    Raises:
        FedencError: whatever the server app raised.
        EngineError: Flower or Ray failed.
    """
    from flwr.server.superlink.fleet.vce import vce_api
    from flwr.server.superlink.fleet.vce.backend import raybackend
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from simulations.backend import ClientProcesses
    from simulations.delivery import deliver

    server_done = threading.Event()
    observed = ServerApp()

    @observed.main()
    def main(grid: "Grid", context: "Context") -> None:
        try:
            server_app(grid, context)
        finally:
            server_done.set()

    backend = functools.partial(ClientProcesses, server_done, scenario.engine.machines)
    try:
        # Flower looks both up by these names when a simulation starts.
        with (
            warnings.catch_warnings(),
            mock.patch.object(raybackend, "RayBackend", backend),
            mock.patch.object(vce_api, "add_messages_to_queue", deliver),
        ):
            warnings.simplefilter("ignore")
            run_simulation(
                server_app=observed,
                client_app=client_app,
                num_supernodes=scenario.clients.nodes,
                backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}},
            )
    except FedencError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EngineError(
            f"the simulation engine failed: {type(error).__name__}: {reason}; see the log, and "
            "--debug for the trace"
        ) from error


@contextmanager
def logs_in(path: Path) -> Iterator[None]:
    """Send Flower's log to a file instead of the console."""
    quiet()
    from flwr.supercore.logger import FLOWER_LOGGER as logger

    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before, propagated = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before, propagated
        handler.close()
