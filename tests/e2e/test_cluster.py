"""An existing Ray cluster of two nodes, on one of which the trainer's resource is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from command_line import SEED
from ray.cluster_utils import Cluster

import server.trainer
import simulations.run as run_module
from fedenc.scenario import load
from simulations.experiment import prepare

pytestmark = pytest.mark.e2e


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def test_the_trainer_goes_where_its_resource_is(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_node = cluster.add_node(num_cpus=0, resources={server.trainer.RESOURCE: 1})
    placed: dict[str, Any] = {}
    chunks: list[int] = []
    where, load_pool = server.trainer.Trainer.where, server.trainer.Trainer.load

    def remembered(self: server.trainer.Trainer) -> dict[str, Any]:
        placed.update(where(self))
        return dict(placed)

    def counted(self: server.trainer.Trainer, pool: Any) -> None:
        # Nothing but arrays may go to the actor: a path would have to exist on its machine too.
        chunks.extend(len(labels) for _, labels in pool.read())
        load_pool(self, pool)

    monkeypatch.setattr(server.trainer.Trainer, "where", remembered)
    monkeypatch.setattr(server.trainer.Trainer, "load", counted)
    sets = ["clients.count=4", "clients.images=10", "training.epochs=1", "inference.images=4", SEED]
    scenario = load(None, [*sets, f"engine.address='{cluster.address}'"])
    done = run_module.simulate(prepare(scenario), tmp_path / "run")
    assert placed["node"] == trainer_node.node_id
    assert sum(chunks) == 40
    assert done.result["clients"]["uploaded"] == 4
    assert done.result["accuracy"]["encrypted"]["queries"] == 16
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())
    assert recorded["scenario"]["engine"]["address"] == cluster.address
    ray.init(address=cluster.address)
    assert ray.cluster_resources()["CPU"] == 2, "the cluster goes on without the run"
