"""What is asked of a Ray cluster, and what happens where it has too little."""

import pytest
import ray

import server.ray
from fedenc.errors import EngineError
from fedenc.scenario.sections import Server
from server.ray import (
    actor_options,
    client_processes,
    cluster_resources,
    gpus_per_worker,
    worker_resources,
)


def test_workers_need_a_gpu_each_or_none() -> None:
    two = {"GPU": 2.0, "CPU": 8.0}
    assert gpus_per_worker(Server(workers=2), two) == 1
    assert gpus_per_worker(Server(workers=2, gpus=0), two) == 0
    assert gpus_per_worker(Server(workers=2), {"CPU": 8.0}) == 0
    for wanted in (Server(workers=3), Server(workers=3, gpus=1)):
        with pytest.raises(EngineError, match="workers = 3, but the Ray cluster has 2 GPUs"):
            gpus_per_worker(wanted, two)
    with pytest.raises(EngineError, match="has 0 GPUs"):
        gpus_per_worker(Server(gpus=1), {"CPU": 8.0})


def test_resources_wait_for_a_ray_that_is_still_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower starts it beside the server."""
    asked: list[int] = []

    def started() -> bool:
        asked.append(1)
        return len(asked) > 2

    monkeypatch.setattr(ray, "is_initialized", started)
    # Told from early on, when a call would still start a second Ray.
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(len(asked))})
    assert cluster_resources() == {"CPU": 3.0}
    monkeypatch.setattr(server.ray, "_RAY_TIMEOUT", 0.0)
    asked.clear()
    with pytest.raises(EngineError, match="Ray did not start within 0 s"):
        cluster_resources()


def test_every_cpu_of_the_cluster_is_a_client_process(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = iter([{"CPU": 8.0, "GPU": 1.0}, {}])
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: next(offers))
    assert client_processes() == 8
    assert client_processes() == 1, "a window of none would never send anything"


@pytest.mark.parametrize(
    ("workers", "offered", "share"), [(2, 2, 1.0), (2, 1, 0.5), (3, 2, 0.5), (4, 1, 0.25)]
)
def test_workers_share_what_trainer_machines_offer(
    workers: int, offered: int, share: float
) -> None:
    several = Server(workers=workers)
    assert worker_resources(several, {"CPU": 8.0, "trainer": offered}) == {
        "memory": 1.0,
        "trainer": share,
    }
    assert "trainer" not in worker_resources(several, {"CPU": 8.0})


def test_one_actor_asks_for_no_cpu_and_for_a_trainer_machine_where_there_is_one() -> None:
    assert actor_options(Server(), {"CPU": 8.0}) == {
        "num_cpus": 0,
        "num_gpus": 0,
        "resources": None,
    }
    assert actor_options(Server(), {"GPU": 2.0, "trainer": 2.0}) == {
        "num_cpus": 0,
        "num_gpus": 1,
        "resources": {"trainer": 1.0},
    }
