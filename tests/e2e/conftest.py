"""Real Flower and real Ray, through the command that users type."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from command_line import ENVIRONMENT, ROOT

from simulations import engine

START_SECONDS = 120.0  # at most, until the shared cluster is complete


@pytest.fixture(scope="session")
def joined(cluster: str) -> str:
    """What makes a simulation join the shared cluster."""
    return f"engine.address='{cluster}'"


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster for all tests: a head with two cores for participants, and a
    node that has none but the ``trainer`` resource."""
    engine.quiet()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    head = ("--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false")
    node = (f"--address={address}", "--num-cpus=0", '--resources={"trainer":1}')
    # A folder of its own and a short name: its address is not the machine's, and paths of sockets
    # are limited to 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        # Two nodes on one machine: workers take whatever ports are free.
        ports = ("--min-worker-port=0", "--max-worker-port=0")
        common = (*ports, f"--node-ip-address={host}", "--object-store-memory=200000000", "--block")
        with (
            _started("start", *head, *common, f"--temp-dir={folder}", log=Path(folder, "head")),
            _started("start", *node, *common, log=Path(folder, "node")),
        ):
            _await(address, lambda: ray.cluster_resources().keys() >= {"CPU", "trainer"})
            yield address


# Ends with its input, which is a pipe from the tests: however they end, the cluster does not stay.
RAY = '"$0" "$@" & read -r end; kill $!; wait'


@contextlib.contextmanager
def _started(*arguments: str, log: Path) -> Iterator[None]:
    """``ray`` with arguments, until the end of the block. (``ray stop`` would end every Ray.)"""
    with log.open("w") as output:
        process = subprocess.Popen(
            ["sh", "-c", RAY, Path(sys.executable).with_name("ray"), *arguments],
            env=ENVIRONMENT | {"RAY_worker_niceness": "0"},  # as `fedenc simulate` starts its own
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _await(address: str, complete: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not _answers(address):
        assert time.monotonic() < end, "no Ray came up"
        time.sleep(0.1)
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        while not complete():
            assert time.monotonic() < end, "Ray's second node did not join"
            time.sleep(0.1)
    finally:
        ray.shutdown()


def _answers(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
