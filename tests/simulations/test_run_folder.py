"""A run's folder: never another scenario's, never two processes', never public."""

import stat
from pathlib import Path
from typing import Any

import pytest

from fedenc.errors import DataError, EngineError, ScenarioError
from fedenc.scenario import Scenario, parse
from simulations.run_folder import OUTPUT, SCENARIO, occupied, recorded_seed


def scenario(**sections: Any) -> Scenario:
    return parse({"encryption": {"seed": 4242}} | sections)


def begin(folder: Path, s: Scenario, resume: bool = False) -> None:
    with occupied(folder, s, resume):
        pass


def test_a_new_folder_is_made_and_its_scenario_is_private(tmp_path: Path) -> None:
    begin(tmp_path / "a" / "b", scenario())
    mode = (tmp_path / "a" / "b" / SCENARIO).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600  # it holds the seed of the keys


def test_a_used_folder_only_to_resume(tmp_path: Path) -> None:
    begin(tmp_path, scenario())
    with pytest.raises(ScenarioError, match="not empty"):
        begin(tmp_path, scenario())
    begin(tmp_path, scenario(), resume=True)
    with pytest.raises(ScenarioError, match="is a file"):
        begin(tmp_path / SCENARIO, scenario())


@pytest.mark.parametrize(
    "changes",
    [
        {"server": {"min_clients": 3}},  # as the message about too few uploads advises
        {"server": {"deadline": 9.0, "attempts": 4}},
        {"faults": {"die": 2}},
        {"clients": {"per_node": 5}},
        {"engine": {"address": "auto"}},
    ],
)
def test_what_may_differ_when_resumed(tmp_path: Path, changes: dict[str, Any]) -> None:
    begin(tmp_path, scenario())
    begin(tmp_path, scenario(**changes), resume=True)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"training": {"epochs": 3}}, "training.epochs: None then, 3 now"),
        ({"clients": {"count": 3}}, "clients.count"),
        ({"seed": 5}, "seed: 0 then, 5 now"),
        ({"encryption": {"seed": 777}}, "other keys"),
        ({"encryption": {"seed": 4242, "options": {"x": 1}}}, "encryption.options"),
    ],
)
def test_what_may_not_differ(tmp_path: Path, changes: dict[str, Any], shown: str) -> None:
    begin(tmp_path, scenario())
    with pytest.raises(ScenarioError) as error:
        begin(tmp_path, scenario(**changes), resume=True)
    assert shown in str(error.value)
    assert "4242" not in str(error.value)
    assert "777" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_record_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    begin(tmp_path, scenario())
    (tmp_path / SCENARIO).write_bytes(content)
    with pytest.raises(ScenarioError, match="damaged"):
        begin(tmp_path, scenario(), resume=True)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        occupied(tmp_path, scenario(), False),
        pytest.raises(EngineError, match="another run"),
    ):
        begin(tmp_path, scenario(), resume=True)
    begin(tmp_path, scenario(), resume=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("dear to me")
    with pytest.raises(ScenarioError, match=r"'config\.json', but no run"):
        begin(tmp_path, scenario(), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_run_that_had_not_begun_goes_on(tmp_path: Path) -> None:
    begin(tmp_path / "new", scenario(), resume=True)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / OUTPUT).write_text("")  # where a study's run prints to
    begin(tmp_path / "study", scenario(), resume=True)


def test_the_seed_of_an_interrupted_run_is_known(tmp_path: Path) -> None:
    assert recorded_seed(tmp_path) is None
    begin(tmp_path, scenario())
    assert recorded_seed(tmp_path) == 4242
    text = (tmp_path / SCENARIO).read_text()
    (tmp_path / SCENARIO).write_text(text.replace("4242", "4243"))
    with pytest.raises(ScenarioError, match="damaged"):
        recorded_seed(tmp_path)
    (tmp_path / SCENARIO).write_text(text.replace('"seal"', '"seat"'))
    with pytest.raises(ScenarioError, match="another scenario"):
        begin(tmp_path, scenario(), resume=True)


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        begin(tmp_path / "file" / "run", scenario())
