"""Participants that raise, die, sleep and lie: the run completes and the accounts are exact."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import SMALL, simulate_here

pytestmark = pytest.mark.e2e

# A word of each reason, by kind of fault.
SAYS = {
    "raise": "InjectedFaultError",
    "die": "its process died",
    "silent": "not for it within",
    "garble": "digest does not match",
    "wrong_shape": "(3, 32, 31)",
    "duplicate": "duplicate image ids",
}


@pytest.mark.parametrize(
    ("count", "per_node", "faults"),
    [
        (20, 4, {"die": 1, "silent": 1, "garble": 2}),  # those beside them on a node are served
        # more that sleep than there are client processes
        (14, 1, {"raise": 1, "silent": 5, "garble": 1, "wrong_shape": 1, "duplicate": 1}),
    ],
)
def test_everybody_else_takes_part(
    joined: str, tmp_path: Path, count: int, per_node: int, faults: dict[str, int]
) -> None:
    done = simulate_here(
        tmp_path / "run",
        *SMALL,
        joined,
        f"clients.count={count}",
        f"clients.per_node={per_node}",
        "server.deadline=1",
        "server.min_clients=5",
        *(f"faults.{kind}={n}" for kind, n in faults.items()),
    )
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


def test_without_a_quorum_nothing_is_trained_and_nothing_is_lost(
    joined: str, tmp_path: Path
) -> None:
    done = simulate_here(
        tmp_path / "run", *SMALL, joined, "faults.garble=3", "server.min_clients=4"
    )
    assert done.code == 7
    assert len(done.err.strip().splitlines()) == 1
    assert "only 3 of 6" in done.err
    assert "--resume" in done.err
    assert len((done.folder / "provider/pool/index.jsonl").read_text().splitlines()) == 3
