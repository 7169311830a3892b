"""Whole experiments: what is written down, that it repeats, and that it survives."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import ROOT, SMALL, Finished, arguments

pytestmark = pytest.mark.e2e
Simulate = Callable[..., Finished]


def test_a_run_writes_down_all_that_the_contract_names(simulate: Simulate) -> None:
    done = simulate(
        *SMALL,
        "encryption.keys='client'",
        "clients.query_only=2",
        "clients.plain_fraction=0.34",
        more=("--baselines", "--tensorboard"),
    )
    assert done.code == 0, done.err
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


def test_the_model_does_not_depend_on_nodes_or_repetition(simulate: Simulate) -> None:
    first = simulate(*SMALL, name="one")
    again = simulate(*SMALL, name="two")
    shared = simulate(*SMALL, "clients.per_node=4", name="three")
    other_keys = simulate(*SMALL, "encryption.seed='another'", name="four")
    digests = [run.result["model"]["sha256"] for run in (first, again, shared, other_keys)]
    assert digests[0] == digests[1] == digests[2] != digests[3]


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "the run never came so far"
        assert process.poll() is None, "the run ended too soon"
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["upload", "training"])
def test_killed_and_resumed_it_ends_with_the_same_model(
    simulate: Simulate, tmp_path: Path, stage: str
) -> None:
    longer = [*SMALL, "training.epochs=30"]
    whole = simulate(*longer, name="whole")
    folder = tmp_path / "killed"
    # At upload one participant dawdles, so that there is time to kill the run half-way.
    slow = ["faults.silent=1", "faults.transient=true", "server.deadline=15"]
    sets = [*longer, *slow] if stage == "upload" else longer
    process = subprocess.Popen(
        arguments(folder, *sets),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def far_enough() -> bool:
        index = folder / "provider" / "pool" / "index.jsonl"
        if stage == "upload":
            return index.exists() and 2 <= len(index.read_text().splitlines()) < 6
        log = folder / "log.txt"
        return log.exists() and any(
            f" training {step}" in log.read_text() for step in (12, 18, 24, 30)
        )

    _wait(far_enough, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stored = (folder / "provider" / "pool" / "index.jsonl").read_text().splitlines()
    assert not (folder / "result.json").exists()

    resumed = simulate(*sets, name="killed", more=("--resume",))
    assert resumed.code == 0, resumed.err
    assert resumed.result["model"]["sha256"] == whole.result["model"]["sha256"]
    assert resumed.result["upload"]["resumed"] == len(stored)
    now = (folder / "provider" / "pool" / "index.jsonl").read_text().splitlines()
    assert now[: len(stored)] == stored, "what was uploaded before the crash was kept as it was"


def test_resume_refuses_another_scenario_and_a_full_folder(
    simulate: Simulate, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "scenario.json").write_text(json.dumps({"seed": 0, "clients": {"count": 7}}))
    other = simulate(*SMALL, more=("--resume",))
    assert other.code == 2
    assert "clients.count: 7 then, 6 now" in other.err
    full = simulate(*SMALL)
    assert full.code == 2
    assert "not empty" in full.err
    assert len(full.err.strip().splitlines()) == 1
