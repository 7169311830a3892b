"""What a run keeps on the driver's side: the traces of participants, and who was simulated."""

import stat
from pathlib import Path

import pytest

from clients import app as client_app
from fedenc.errors import QuorumError
from fedenc.scenario import load
from server.app import Event, Outcome
from simulations import run
from simulations.experiment import Experiment, OnEvent, prepare

SETS = ["clients.count=3", "clients.images=4", "encryption.seed=1"]


def fail(i: int) -> Exception:
    """An error with a trace, as a bug in somebody's cipher makes one."""
    try:
        raise KeyError(f"a plug-in's bug at participant {i}")
    except KeyError as error:
        return error


def test_a_participants_trace_stands_whole_on_its_own_side(tmp_path: Path) -> None:
    for i in (1, 2, None):
        run.note_trace(tmp_path / run.TRACES, i, fail(i or 0))
    text = (tmp_path / run.TRACES).read_text()
    for who, i in (("participant 1", 1), ("participant 2", 2), ("a node", 0)):
        assert f"{who}\nTraceback" in text
        assert f'KeyError: "a plug-in\'s bug at participant {i}"' in text
    assert "test_run.py" in text
    assert stat.S_IMODE((tmp_path / run.TRACES).stat().st_mode) == 0o600


def test_where_the_driver_is_not_the_trace_stays_on_that_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ray and Flower pass on what processes print; nothing may be printed."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for traces in (None, tmp_path / "elsewhere" / run.TRACES):
        run.note_trace(traces, 0, fail(0))
    kept = tmp_path / "config" / "fedenc" / run.TRACES
    assert kept.read_text().count("Traceback") == 2
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "elsewhere").exists()


def test_the_error_of_a_run_names_the_traces_and_the_provider_hears_only_the_type(
    tmp_path: Path,
) -> None:
    def perform(experiment: Experiment, on_event: OnEvent) -> Outcome:
        on_event(Event("upload", 0, 3))
        run.note_trace(tmp_path / run.TRACES, 0, fail(0))
        told = client_app._public(fail(0))
        assert told == "KeyError"
        raise QuorumError(f"only 0 of 3 participants uploaded ({told})")

    with pytest.raises(QuorumError) as error:
        run.record(prepare(load(None, SETS), "mine"), tmp_path, perform)
    assert str(error.value).endswith(f"what participants raised stands in {tmp_path / run.TRACES}")
    assert "plug-in" not in str(error.value)
    log = (tmp_path / "log.txt").read_text()
    assert "mine on photos, scenario " in log
    assert "upload 0/3" in log


def test_a_population_is_made_once_a_process() -> None:
    scenario = prepare(load(None, SETS)).scenario
    first = run.host(scenario, None)  # type: ignore[arg-type]
    assert run.host(scenario.model_copy(), None) is first  # type: ignore[arg-type]
