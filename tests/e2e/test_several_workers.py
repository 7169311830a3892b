"""A whole run on several workers, through real Flower, real Ray and Ray Train.

What becomes of workers that are lost for good, and of trainings that are left or resumed, is tested
without Flower, in tests/server.
"""

import os
import signal
from pathlib import Path

import pytest
from ray._private.state import actors

import server.parallel
import simulations.run as run_module
from fedenc.scenario import load
from server.app import Event
from simulations.experiment import prepare

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def _workers(state: str | None = None) -> list[int]:
    """Process ids of Ray Train's workers, of all or of those in one state."""
    return [
        actor["Pid"]
        for actor in actors().values()
        if actor["ActorClassName"] == "RayTrainWorker" and state in (None, actor["State"])
    ]


def test_a_simulation_survives_the_death_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Client actors hold all CPUs all the while."""
    monkeypatch.setattr(server.parallel, "CHECKPOINT_SECONDS", 0.0)
    steps: list[int] = []
    killed: list[int] = []
    started: list[int] = []

    def report(event: Event) -> None:
        if event.phase == "training" and event.done:
            steps.append(int(event.done))
            if not killed:
                killed.extend(_workers("ALIVE"))
                os.kill(killed[-1], signal.SIGKILL)
        if event.phase == "queries":
            started[:] = _workers()

    sets = ["clients.count=4", "clients.images=32", "inference.images=8", "training.epochs=25"]
    scenario = load(None, [*sets, "server.workers=2", "training.batch_size=32"])
    done = run_module.simulate(prepare(scenario), tmp_path / "run", on_event=report)
    assert len(killed) == 2
    assert len(set(started) - set(killed)) == 2, "both were started again"
    assert steps[-1] == 25 * 4
    assert done.result["training"]["device"] == "2 × cpu"
    assert done.result["training"]["threads"] == max(1, (os.cpu_count() or 1) // 2)
    assert done.result["accuracy"]["encrypted"]["queries"] == 4 * 8
    assert (tmp_path / "run" / "model.safetensors").exists()
