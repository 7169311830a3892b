"""The benchmark of canonical forms: rows are scenarios, and what no key changes answers alike."""

from pathlib import Path

import pytest

from benchmarks.orbits.run import Row, measure, rows, spread, table
from simulations.experiment import prepare

SETTINGS = {
    "data": {"name": "photos"},
    "clients": {"images": 48},
    "training": {"epochs": 1},
    "server": {"threads": 1},
}


@pytest.mark.parametrize("row", list(rows(1)), ids=lambda row: row.name)
def test_every_row_is_a_scenario_under_independent_keys(row: Row) -> None:
    experiment = prepare(row.scenario(SETTINGS))
    assert experiment.warnings == ()
    assert experiment.scenario.encryption.keys == "image"
    assert experiment.population.participant(0).upload().manifest.cipher == row.cipher


def test_a_row_is_measured_once_and_then_read(tmp_path: Path) -> None:
    row = Row("etc", "invariant", "set", 0)
    first = measure(row, SETTINGS, tmp_path / row.name)
    assert measure(row, SETTINGS, tmp_path / row.name) == first
    assert first["agreement"] == 1
    assert first["plain"] == first["accuracy"]
    assert "| etc | invariant | set |" in table([first])


def test_the_spread_is_the_sample_deviation() -> None:
    assert spread([]) == ""
    assert spread([41.26]) == "41.3"
    assert spread([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
