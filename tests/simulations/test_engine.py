"""The pool of client processes: a run ends, and loses nobody who is well, whatever Ray can place.

One Ray of two CPUs serves all tests. What runs in Ray's processes is made inside functions, so
that it travels by value: they cannot import this file.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedenc.errors import EngineError
from fedenc.scenario import Scenario
from simulations import engine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

NODES = 6
PATIENCE = 60.0  # seconds: several times what a run takes


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    engine.quiet()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@contextlib.contextmanager
def one_cpu_taken(wait: bool = True) -> Iterator[Any]:
    """An actor that holds a CPU, or will as soon as there is one."""

    class Holder:
        def holds(self) -> bool:
            return True

    holder = ray.remote(num_cpus=1)(Holder).remote()
    try:
        if wait:
            ray.get(holder.holds.remote(), timeout=PATIENCE)
        yield holder
    finally:
        ray.kill(holder)


def client_app() -> ClientApp:
    """Replies with the number of its process, or does what it is told."""
    app = ClientApp()

    @app.query()
    def act(message: Message, context: Context) -> Message:
        order = message.content["order"]["what"]
        if order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "raise":
            raise ValueError("as told")
        time.sleep(0.2 if order == "linger" else 0)
        reply = RecordDict({"process": ConfigRecord({"id": os.getpid()})})
        return Message(reply, reply_to=message)

    return app


def ask(grid: Grid, order: str, nodes: int = NODES) -> list[Message]:
    """The replies of so many nodes, as far as they come in time."""
    content = RecordDict({"order": ConfigRecord({"what": order})})
    ids = sorted(grid.get_node_ids())[:nodes]
    messages = [Message(content, node, "query") for node in ids]
    return list(grid.send_and_receive(messages, timeout=PATIENCE / 2))


def processes(replies: list[Message]) -> set[int]:
    """The processes that answered; all must have."""
    assert not [reply.error for reply in replies if reply.has_error()]
    return {int(reply.content["process"]["id"]) for reply in replies}


def both(grid: Grid) -> set[int]:
    """The two client processes, once both have started."""
    found: set[int] = set()
    end = time.monotonic() + PATIENCE / 2
    while len(found) < 2:
        assert time.monotonic() < end
        found = processes(ask(grid, "linger", 4))
    return found


def run(serve: Callable[[Grid], None]) -> None:
    """A whole run with this server, which has to end in time."""
    server_app, ended = ServerApp(), list[BaseException | None]()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < NODES:
            time.sleep(0.05)
        serve(grid)

    def simulate() -> None:
        try:
            engine.simulate(server_app, client_app(), scenario)
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    scenario = Scenario.model_validate({"clients": {"count": NODES}})
    thread = threading.Thread(target=simulate, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert ended, "the run never returned"
    if ended[0] is not None:
        raise ended[0]


def test_a_pool_that_ray_can_place_in_part_serves_everybody_and_the_run_ends() -> None:
    def serve(grid: Grid) -> None:
        replies = ask(grid, "answer")
        assert len(replies) == NODES
        assert len(processes(replies)) == 1

    with one_cpu_taken():
        run(serve)


def test_where_ray_can_place_nothing_the_run_ends_with_the_server() -> None:
    def serve(grid: Grid) -> None:
        content = RecordDict({"order": ConfigRecord({"what": "answer"})})
        grid.push_messages([Message(content, next(iter(grid.get_node_ids())), "query")])
        time.sleep(1)

    with one_cpu_taken(), one_cpu_taken():
        run(serve)


def test_a_process_that_died_idle_takes_nobody_along() -> None:
    def serve(grid: Grid) -> None:
        first, second = both(grid)
        with one_cpu_taken(wait=False) as holder:  # takes the CPU of the process that dies
            os.kill(first, signal.SIGKILL)
            ray.get(holder.holds.remote(), timeout=PATIENCE / 2)
            replies = ask(grid, "answer")
            assert len(replies) == NODES
            assert processes(replies) == {second}

    run(serve)


def test_a_message_that_kills_its_process_fails_alone_and_the_process_is_replaced() -> None:
    def serve(grid: Grid) -> None:
        before = both(grid)
        (reply,) = ask(grid, "die", 1)
        assert "ActorDiedError" in reply.error.reason
        after = both(grid)
        assert len(before & after) == 1

    run(serve)


def test_an_app_that_raises_costs_no_process() -> None:
    def serve(grid: Grid) -> None:
        before = both(grid)
        replies = ask(grid, "raise")
        assert len(replies) == NODES
        assert all("as told" in reply.error.reason for reply in replies)
        assert both(grid) == before

    run(serve)


def test_a_server_that_fails_ends_the_run_with_its_error() -> None:
    def serve(grid: Grid) -> None:
        raise EngineError("of the server")

    with pytest.raises(EngineError, match="of the server"), one_cpu_taken():
        run(serve)


def test_processes_that_ray_starts_have_this_code_and_its_settings(tmp_path: Path) -> None:
    code = """
import os
from simulations import engine
with engine.ray_session(None):
    import ray
    @ray.remote
    def seen():
        import simulations
        return os.environ["GOMP_SPINCOUNT"], simulations.__file__
    print(*ray.get(seen.remote()))
print(os.environ.get("PYTHONPATH"))
"""
    root = str(Path(engine.__file__).parents[1])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP"))}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"],
        env=environment | {"PYTHONPATH": "/elsewhere", "GOMP_SPINCOUNT": "7"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["7", f"{root}/simulations/__init__.py", "/elsewhere"]


def test_a_ray_that_does_not_start_in_time_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(**options: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", late)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(EngineError, match="cannot start on this machine: The current node"):
        engine.ray_session(None).__enter__()
