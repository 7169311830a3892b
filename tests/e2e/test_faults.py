"""Participants that raise, die, sleep and lie: the run completes and the accounts are exact."""

from collections import Counter
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest
from command_line import SMALL, Finished

pytestmark = pytest.mark.e2e
Simulate = Callable[..., Finished]

# A word of each reason, by kind of fault.
SAYS = {
    "raise": "InjectedFaultError",
    "die": "its process died",
    "silent": "not for it within",
    "garble": "digest does not match",
    "wrong_shape": "(3, 32, 31)",
    "duplicate": "duplicate image ids",
}


def _check(done: Finished, count: int, faults: dict[str, int]) -> None:
    assert done.code == 0, done.err
    result = done.result
    failed = result["clients"]["failed"]
    struck = sum(faults.values())
    assert result["clients"]["uploaded"] == count - struck
    assert len({f["id"] for f in failed}) == len(failed) == struck
    assert {f["phase"] for f in failed} <= {"upload"}
    kinds = Counter(kind for f in failed for kind, word in SAYS.items() if word in f["reason"])
    assert kinds == Counter(faults), failed
    rows = pq.read_table(done.folder / "clients.parquet").to_pylist()
    assert {row["id"] for row in rows if not row["uploaded"]} == {f["id"] for f in failed}
    healthy = [row for row in rows if row["uploaded"]]
    assert all(row["images"] == 20 and row["queries_plain"] == 8 for row in healthy)
    assert result["upload"]["images"] == 20 * len(healthy)


@pytest.mark.parametrize("per_node", [1, 4])
def test_faults_of_every_kind_together(simulate: Simulate, per_node: int) -> None:
    faults = {"die": 3, "silent": 1, "garble": 2}
    sets = [f"faults.{kind}={n}" for kind, n in faults.items()]
    done = simulate(
        *SMALL,
        "clients.count=20",
        f"clients.per_node={per_node}",
        "server.deadline=4",
        *sets,
    )
    _check(done, 20, faults)


def test_liars_and_more_sleepers_than_client_processes(simulate: Simulate) -> None:
    faults = {"raise": 1, "wrong_shape": 1, "duplicate": 1, "garble": 1, "silent": 5}
    sets = [f"faults.{kind}={n}" for kind, n in faults.items()]
    done = simulate(*SMALL, "clients.count=14", "server.deadline=3", "server.min_clients=5", *sets)
    _check(done, 14, faults)


def test_transient_faults_cost_nobody_his_upload(simulate: Simulate) -> None:
    sets = [f"faults.{kind}=1" for kind in SAYS]
    done = simulate(
        *SMALL,
        "clients.count=8",
        "clients.per_node=2",
        "server.deadline=3",
        "faults.transient=true",
        *sets,
    )
    _check(done, 8, {})


def test_without_a_quorum_nothing_is_trained_and_nothing_is_lost(simulate: Simulate) -> None:
    sets = [*SMALL, "faults.garble=3", "server.min_clients=4"]
    done = simulate(*sets)
    assert done.code == 7
    assert len(done.err.strip().splitlines()) == 1
    assert "only 3 of 6" in done.err
    assert "--resume" in done.err
    assert len((done.folder / "provider/pool/index.jsonl").read_text().splitlines()) == 3
