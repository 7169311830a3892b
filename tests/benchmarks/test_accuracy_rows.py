"""The accuracy benchmark: rows are scenarios, trained and asked as a run would be."""

from pathlib import Path

import pytest

from benchmarks.accuracy.rows import VIEWS, Row, rows
from benchmarks.accuracy.run import measure, table
from simulations.experiment import prepare

SETTINGS = {
    "data": {"name": "photos"},
    "clients": {"images": 48},
    "model": {"name": "fast"},
    "training": {"epochs": 1},
    "server": {"threads": 1},
}


@pytest.mark.parametrize("row", list(rows(1)), ids=lambda row: row.name)
def test_every_row_is_a_scenario_that_can_be_run(row: Row) -> None:
    experiment = prepare(row.scenario(SETTINGS, "crop-flip"))
    assert experiment.warnings == ()
    shard = experiment.population.participant(0).upload()
    assert shard.manifest.rows == 48 * (VIEWS if row.domain == "plain" else 1)
    assert shard.manifest.cipher == ("none" if row.protection == "plain" else "pixel")
    asked = experiment.scenario.conditions()
    second = {"plain": [], "np-same": ["same-key"]}.get(row.protection, ["encrypted"])
    assert list(asked) == ["plain", *second]


def test_a_row_is_measured_once_and_then_read(tmp_path: Path) -> None:
    row = Row("np-cs-image", "invariant", "none", 0)
    first = measure(row, SETTINGS, "crop-flip", tmp_path / row.name)
    stamp = (tmp_path / row.name / "result.json").stat().st_mtime_ns
    assert measure(row, SETTINGS, "crop-flip", tmp_path / row.name) == first
    assert (tmp_path / row.name / "result.json").stat().st_mtime_ns == stamp
    assert first["agreement"] == 1.0, "features that no key changes"
    assert first["plain"] == first["encrypted"]
    assert "| np-cs-image | invariant | none |" in table([first])
