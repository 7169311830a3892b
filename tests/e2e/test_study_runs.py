"""A study with real runs: one fails, the other is finished and attacked, and stays as it is."""

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import COMMAND, ENVIRONMENT, ROOT

DESIGN = """
[study]
name = "two"
question = "Does one failure stop the others?"

[base]
preset = "photos"
clients.count = 2
clients.images = 20
model.compare = []
training.epochs = 1
inference.images = 4
server.deadline = 20
server.attempts = 1

[[variants]]
name = "sound"

[[variants]]
name = "broken"
faults.raise = 2

[attacks]
names = "observe"
images = 10
public = 10

[[plots]]
x = "variant"
"""

pytestmark = pytest.mark.e2e


def fedenc(*arguments: str) -> int:
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, env=ENVIRONMENT, check=False)
    return done.returncode


def test_runs_are_placed_recorded_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(DESIGN)
    out = tmp_path / "out"
    command = ["study", str(tmp_path / "two.toml"), "--out", str(out), "--at-once", "2"]
    assert fedenc(*command) == 1, "one run failed"
    facts = json.loads((out / "study.json").read_text())
    assert facts["runs"] == {"planned": 2, "finished": 1}
    assert "of 2" in facts["failed"][0]["reason"]
    table = pq.read_table(out / "study.parquet").to_pylist()
    sound = [row for row in table if row["variant"] == "sound"]
    assert {row["condition"] for row in sound} == {"plain", "encrypted"}
    assert all(row["clients.count"] == 2 for row in sound)
    (attacked,) = pq.read_table(out / "attacks.parquet").to_pylist()
    assert (attacked["variant"], attacked["attack"], attacked["targets"]) == (
        "sound",
        "observe",
        10,
    )
    assert (out / "plots" / "1.svg").exists()
    assert "Does one failure stop the others?" in (out / "report.html").read_text()
    (folder,) = [p for p in (out / "runs").iterdir() if (p / "result.json").exists()]
    before = (folder / "result.json").stat().st_mtime_ns
    assert fedenc(*command, "--resume") == 1
    assert (folder / "result.json").stat().st_mtime_ns == before, "finished runs are left alone"
