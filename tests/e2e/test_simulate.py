"""Whole experiments: what is written down, that it repeats, and that it survives."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command_line import (
    COMMAND,
    ENVIRONMENT,
    ROOT,
    SMALL,
    simulate,
    simulate_here,
    without_seed,
    words,
)


@pytest.mark.e2e
def test_a_run_writes_down_all_that_the_contract_names(tmp_path: Path) -> None:
    done = simulate(
        tmp_path / "run",
        *SMALL,
        "encryption.keys='client'",
        "clients.query_only=2",
        "clients.plain_fraction=0.34",
        more=("--baselines", "--tensorboard"),
    )
    result = done.result
    assert result["keys"] == {"policy": "client", "simulated": True, "views": 1}
    assert result["clients"] == {"requested": 6, "uploaded": 6, "plain": 2, "failed": []}
    assert result["upload"]["images"] == 6 * 20
    assert result["upload"]["bytes"] == 6 * 20 * 3 * 32 * 32
    assert result["training"]["epochs"] == 1
    assert result["training"]["device"] == "cpu" or result["hardware"]["gpus"]
    assert set(result["accuracy"]) == {"plain", "encrypted", "same-key"}
    assert result["accuracy"]["plain"]["queries"] == 6 * 8
    assert result["accuracy"]["same-key"]["queries"] == 4 * 8  # two stay plain: no key of theirs
    assert set(result["outsiders"]) == {"plain", "encrypted", "agreement"}
    assert result["outsiders"]["encrypted"]["queries"] == 2 * 8
    assert 0 <= result["agreement"]["plain_vs_encrypted"] <= 1
    assert result["agreement"]["pairs"] == 6 * 8
    assert result["baselines"]["alone"]["owners"] == 6
    assert len(result["model"]["sha256"]) == 64
    assert {"scenario", "scenario_hash", "versions", "hardware", "commit"} <= set(result)

    rows = pq.read_table(done.folder / "clients.parquet").to_pylist()
    assert [row["id"] for row in rows] == list(range(8))
    assert [row["role"] for row in rows] == ["member"] * 6 + ["outsider"] * 2
    assert sum(row["correct_plain"] for row in rows[:6]) == round(
        result["accuracy"]["plain"]["overall"] * 48
    )
    assert any("events" in path.name for path in (done.folder / "tensorboard").iterdir())
    assert (done.folder / "model.safetensors").stat().st_size > 100_000
    assert "upload" in (done.folder / "log.txt").read_text()
    for word in ("participants", "plain", "encrypted", "same-key", "outsiders", str(done.folder)):
        assert word in done.out
    assert "Traceback" not in done.out + done.err


LONGER = [*SMALL, "training.epochs=8"]
# Every participant fails at first, each in its own way.
TRANSIENT = [
    *(f"faults.{kind}=1" for kind in ("raise", "die", "silent", "garble", "wrong_shape")),
    "faults.duplicate=1",
    "faults.transient=true",
    "server.deadline=1",
]
DAWDLING = ["faults.silent=1", "faults.transient=true", "server.deadline=15"]


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "the run never came so far"
        assert process.poll() is None, "the run ended too soon"
        time.sleep(0.02)


def _killed(folder: Path, *sets: str, when: Callable[[], bool], more: Iterable[str] = ()) -> None:
    """Run until ``when``, then kill the run and all its processes."""
    shown, seed = without_seed(words(folder, *sets, more=more))
    process = subprocess.Popen(
        [*COMMAND, *shown],
        env=ENVIRONMENT | seed,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(when, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "result.json").exists()


@pytest.fixture(scope="module")
def whole(joined: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run that nothing disturbed."""
    return simulate_here(tmp_path_factory.mktemp("whole"), *LONGER, joined).result


@pytest.mark.e2e
def test_other_keys_make_another_model(whole: dict[str, Any], joined: str, tmp_path: Path) -> None:
    other = simulate_here(tmp_path / "run", *LONGER, joined, "encryption.seed='another'").result
    assert other["model"]["sha256"] != whole["model"]["sha256"]


@pytest.mark.e2e
def test_the_model_depends_neither_on_nodes_nor_on_first_attempts_that_fail(
    whole: dict[str, Any], joined: str, tmp_path: Path
) -> None:
    sets = [*LONGER, "clients.per_node=2", *TRANSIENT]
    shaken = simulate_here(tmp_path / "run", *sets, joined).result
    assert shaken["clients"] == whole["clients"]
    assert shaken["model"]["sha256"] == whole["model"]["sha256"]


@pytest.mark.e2e
def test_killed_twice_and_resumed_it_ends_with_the_same_model(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    """Killed while it collects and again when it has a checkpoint, each time with its own Ray."""
    folder = tmp_path / "run"
    index = folder / "provider" / "pool" / "index.jsonl"

    def stored() -> list[str]:
        return index.read_text().splitlines() if index.exists() else []

    def trained() -> bool:
        return any((folder / "provider").glob("checkpoint-*.bin"))

    _killed(folder, *LONGER, *DAWDLING, when=lambda: 2 <= len(stored()) < 6)
    first = stored()
    _killed(folder, *LONGER, when=trained, more=["--resume"])
    assert len(stored()) == 6
    assert stored()[: len(first)] == first, "what was uploaded before the crash was kept as it was"
    resumed = simulate(folder, *LONGER, more=["--resume"]).result
    assert resumed["upload"]["resumed"] == 6
    assert resumed["model"]["sha256"] == whole["model"]["sha256"]


def test_resume_refuses_another_scenario_and_a_full_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "scenario.json").write_text(json.dumps({"seed": 0, "clients": {"count": 7}}))
    other = simulate_here(folder, *SMALL, more=["--resume"])
    assert other.code == 2
    assert "clients.count: 7 then, 6 now" in other.err
    full = simulate_here(folder, *SMALL)
    assert full.code == 2
    assert "not empty" in full.err
    assert len(full.err.strip().splitlines()) == 1
