"""``flwr run .``: the same apps under Flower's own command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from command_line import ENVIRONMENT, ROOT
from flwr.app import Context, RecordDict, UserConfig
from flwr.serverapp import Grid

from fedenc.errors import ScenarioError
from simulations.flower import server_app

FLWR = str(Path(sys.executable).with_name("flwr"))


class Flower:
    """Flower's command line with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.environment = ENVIRONMENT | {
            "FLWR_HOME": str(home),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{ENVIRONMENT['PATH']}",
        }

    def __call__(self, *words: str, timeout: float = 120) -> str:
        done = subprocess.run(
            [FLWR, *words],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def outcome(self, run_id: str) -> dict[str, Any]:
        """Wait for a run to finish; `flwr run` itself exits 0 whatever becomes of it."""
        end = time.monotonic() + 240
        while time.monotonic() < end:
            runs = json.loads(self("list", "--format", "json"))["runs"]
            (run,) = (r for r in runs if str(r["run-id"]) == run_id)
            if run["status"].startswith("finished"):
                return dict(run)
            time.sleep(1)
        raise AssertionError(f"run {run_id} did not finish")

    def stop(self) -> None:
        """End the SuperLink left behind: whatever has our home in its environment."""
        mark = f"FLWR_HOME={self.environment['FLWR_HOME']}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGTERM)
            except (OSError, PermissionError):
                continue


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[Flower]:
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs /proc to end Flower's detached processes")
    command = Flower(tmp_path / "flower")
    try:
        yield command
    finally:
        command.stop()


@pytest.mark.e2e
def test_flwr_run_writes_the_same_results(flower: Flower, tmp_path: Path) -> None:
    sets = "clients.count=6; clients.per_node=2; clients.images=10; training.epochs=1"
    shown = flower(
        *("run", ".", "--format", "json"),
        *("--federation-config", "num-supernodes=3"),
        *("--run-config", f'set="{sets}" out="{tmp_path / "out"}"'),
    )
    run = flower.outcome(str(json.loads(shown[shown.index("{") :])["run-id"]))
    assert run["status"] == "finished:completed", run
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["clients"] == {"requested": 6, "uploaded": 6, "plain": 0, "failed": []}
    assert {"plain", "encrypted"} == set(result["accuracy"])


def test_the_seed_of_keys_does_not_travel_in_the_run_configuration(tmp_path: Path) -> None:
    """The provider's side sees that configuration."""
    config: UserConfig = {"set": "clients.count=6; encryption.seed=3", "out": str(tmp_path / "out")}
    context = Context(1, 0, node_config={}, state=RecordDict(), run_config=config)
    with pytest.raises(ScenarioError, match=r"encryption\.seed must not travel"):
        server_app(cast(Grid, None), context)
    assert not (tmp_path / "out").exists()
