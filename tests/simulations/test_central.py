"""The engine's run and the same experiment without an engine end with the same model."""

from pathlib import Path
from typing import Any

import pytest

from fedenc.scenario import load
from simulations import central, result, run
from simulations.experiment import Experiment, OnEvent, prepare
from simulations.run_folder import PROVIDER

SETS = [
    "clients.count=4",
    "clients.images=16",
    "clients.query_only=1",
    "clients.plain_fraction=0.25",
    "encryption.keys=client",
    "encryption.views=1",
    "encryption.seed=3",
    "model.name=fast",
    "model.compare=['invariant']",
    "training.epochs=1",
    "inference.images=6",
    "server.threads=1",
]


def centrally(folder: Path, *sets: str) -> dict[str, Any]:
    """The result of an experiment that no engine ran."""

    def perform(experiment: Experiment, on_event: OnEvent) -> Any:
        return central.perform(experiment, folder / PROVIDER, on_event)

    return run.record(prepare(load(None, [*SETS, *sets])), folder, perform).result


def test_it_counts_what_everybody_asked(tmp_path: Path) -> None:
    found = centrally(tmp_path / "run")
    assert found["clients"]["uploaded"] == 4
    assert found["clients"]["plain"] == 1
    for asked in (found, found["compared"]["invariant"]):
        assert asked["accuracy"]["plain"]["queries"] == 24
        assert asked["accuracy"]["plain"]["images"] == 24
        assert asked["accuracy"]["same-key"]["queries"] == 18, "who stays plain has no such key"
        assert asked["outsiders"]["encrypted"]["queries"] == 6
    assert found["compared"]["invariant"]["agreement"] == {
        "plain_vs_encrypted": 1,
        "pairs": 24,
        "right_only_plain": 0,
        "right_only_encrypted": 0,
        "p_value": 1.0,
    }
    assert (tmp_path / "run" / "invariant" / "model.safetensors").exists()
    rows = (tmp_path / "run" / result.CLIENTS).read_bytes()
    assert rows


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = centrally(tmp_path / "whole", "training.epochs=3")
    experiment = prepare(load(None, [*SETS, "training.epochs=3"]))

    class Stopped(Exception):
        pass

    def stop(event: Any) -> None:
        if event.done >= event.total / 2:
            raise Stopped

    with pytest.raises(Stopped):
        central.perform(experiment, tmp_path / "stopped", stop)
    again = central.perform(experiment, tmp_path / "stopped", lambda event: None)
    assert again.model.sha256 == whole["model"]["sha256"]


FORMS = {
    "pixel": ["model.name=tiny"],
    "etc": ["model.name=set"],
    "etc-gray": ["model.name=tiny", "encryption.options={subsampling='4:2:0'}"],
    "scramble": ["model.name=set", "encryption.block_size=8"],
    "le": ["model.name=tiny"],
    "ele": ["model.name=set"],
}


@pytest.mark.parametrize("cipher", FORMS)
def test_a_canonical_input_answers_plain_and_encrypted_queries_alike(
    cipher: str, tmp_path: Path
) -> None:
    """Also where plain images have another shape than ciphertexts: they are sent in its layout."""
    sets = [f"encryption.cipher={cipher}", "model.input=invariant", "model.compare=[]"]
    found = centrally(tmp_path, *sets, *FORMS[cipher])
    assert found["clients"]["plain"] == 1
    assert found["accuracy"]["plain"]["queries"] == 24
    assert found["agreement"] == {
        "plain_vs_encrypted": 1,
        "pairs": 24,
        "right_only_plain": 0,
        "right_only_encrypted": 0,
        "p_value": 1.0,
    }


@pytest.mark.e2e
def test_the_engine_ends_with_the_same_model(tmp_path: Path) -> None:
    without = centrally(tmp_path / "without")
    with_engine = run.simulate(prepare(load(None, SETS)), tmp_path / "with").result
    for ours, theirs in (
        (without, with_engine),
        (without["compared"]["invariant"], with_engine["compared"]["invariant"]),
    ):
        assert ours["model"]["sha256"] == theirs["model"]["sha256"]
        assert ours["accuracy"] == theirs["accuracy"]
        assert ours["outsiders"] == theirs["outsiders"]
        assert ours["agreement"] == theirs["agreement"]
    assert result.read(tmp_path / "with") == with_engine
