"""``result.json`` and ``clients.parquet`` hold what docs/results.md says, and nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fedenc.errors import ScenarioError
from fedenc.scenario import load
from fedenc.training.model_files import load_model
from simulations import central, result, run
from simulations.experiment import Experiment, OnEvent, prepare
from simulations.run_folder import PROVIDER

GUIDE = Path(__file__).parents[2] / "docs" / "results.md"
CONDITIONS = "plain|encrypted|same-key|foreign"
SETS = [
    "clients.count=3",
    "clients.images=12",
    "clients.query_only=1",
    "encryption.keys=client",
    "encryption.seed=3",
    "model.name=fast",
    "model.compare=['invariant']",
    "training.epochs=1",
    "inference.images=4",
    "server.threads=1",
]


def paths(values: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values that are no objects."""
    if not isinstance(values, dict):
        yield prefix
        return
    if not values:
        yield prefix + ".*"
    for key, value in values.items():
        yield from paths(value, f"{prefix}.{key}" if prefix else key)


def documented(section: str) -> list[str]:
    """Patterns of the first column of a section's table; ``.x`` repeats what stands before it."""
    text = GUIDE.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    patterns: list[str] = []
    for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE):
        base = ""
        for name in re.findall(r"`([^`]+)`", row):
            full = base.rpartition(".")[0] + name if name.startswith(".") else name
            base = full
            pattern = re.escape(full).replace(r"\*", ".+").replace("_INPUT", "(_invariant)?")
            pattern = pattern.replace("CONDITION", f"({CONDITIONS})").replace("INPUT", "invariant")
            patterns.append(pattern)
    return patterns


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> run.Finished:
    folder = tmp_path_factory.mktemp("result")

    def perform(experiment: Experiment, on_event: OnEvent) -> Any:
        return central.perform(experiment, folder / PROVIDER, on_event)

    return run.record(prepare(load(None, SETS), "mine"), folder, perform, baselines=True)


def test_every_key_of_a_result_is_documented(finished: run.Finished) -> None:
    patterns = documented("result.json")
    unknown = [
        path
        for path in paths(finished.result)
        if not any(re.fullmatch(pattern, path) for pattern in patterns)
    ]
    assert unknown == []


def test_every_documented_key_is_there(finished: run.Finished) -> None:
    found = list(paths(json.loads((finished.folder / result.RESULT).read_text())))
    absent = [
        pattern
        for pattern in documented("result.json")
        if not any(re.fullmatch(pattern, path) for path in found)
    ]
    elsewhere = ("transformation", "cluster")  # of runs with a shared network, and on a cluster
    assert all(pattern.startswith(elsewhere) for pattern in absent), absent
    assert finished.result["schema"] == result.SCHEMA
    assert f"| `schema` | {result.SCHEMA} |" in GUIDE.read_text()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": 0}', b"\xff"])
def test_results_of_another_version_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / result.RESULT).write_bytes(content)
    with pytest.raises(ScenarioError, match="start in another folder"):
        result.read(tmp_path)
    assert (tmp_path / result.RESULT).read_bytes() == content


def test_every_model_says_in_what_precision_it_was_trained(finished: run.Finished) -> None:
    for folder, found in (
        ("", finished.result),
        ("invariant", finished.result["compared"]["invariant"]),
    ):
        precision = found["training"]["precision"]
        assert precision in ("fp32", "bf16")
        assert found["model"]["precision"] == precision
        assert load_model(finished.folder / folder)[1]["precision"] == precision


def test_every_column_is_documented(finished: run.Finished) -> None:
    text = GUIDE.read_text().partition("## clients.parquet")[2]
    patterns = documented("clients.parquet")
    for name in pq.read_schema(finished.folder / result.CLIENTS).names:
        plain = name.removesuffix("_invariant")
        assert any(re.fullmatch(pattern, plain) for pattern in patterns), name
    assert "_INPUT" in text


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_test_is_scipys(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert result.mcnemar(first, second) == pytest.approx(expected)
