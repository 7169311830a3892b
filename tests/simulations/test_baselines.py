"""The same data trained plain, without anybody's protection."""

from clients.simulated import Population
from fedenc.scenario import load
from server.app import Event
from simulations import baselines


def test_owners_too_small_to_train_alone_are_counted() -> None:
    sets = ["clients.count=3", "clients.images=1", "training.epochs=1", "encryption.seed=1"]
    told: list[Event] = []
    found = baselines.measure(Population(load(None, sets)), told.append)
    assert found["alone"] == {"mean": None, "std": None, "owners": 0, "too_small": 3}
    assert found["precision"] in ("fp32", "bf16")
    assert 0 <= found["central_plain"] <= 1
    assert told[-1].done == told[-1].total == 4
