"""The command line as a user meets it: clear errors, exit codes, what it lists."""

from pathlib import Path

import pytest
import torch
from command_line import Finished, in_a_process, in_this_process, simulate, simulate_here

BAD = {
    "unknown key": (["clients.cuont=3"], "unknown key clients.cuont"),
    "unknown section": (["sever.gpus=0"], "unknown key sever"),
    "count 0": (["clients.count=0"], "clients.count = 0"),
    "too many participants": (["clients.count=5000"], "5000"),
    "alpha 0": (["clients.partition='dirichlet'", "clients.alpha=0"], "clients.alpha = 0"),
    "alpha negative": (["clients.alpha=-1"], "clients.alpha = -1"),
    "unknown cipher": (["encryption.cipher='rot13'"], "rot13"),
    "unknown parameter": (["encryption.options={rounds=3}"], "rounds"),
    "unknown model": (["model.name='resnet21'"], "resnet21"),
    "unknown data": (["data.name='imagenet'"], "imagenet"),
    "unknown augmentation": (["augmentation.server='mixup'"], "mixup"),
    "unknown recipe": (["training.recipe='adamw'"], "adamw"),
    "unknown adapter": (["model.adapter='deep'"], "deep"),
    "invariant to a cipher without such a form": (
        ["model.input='invariant'", "encryption.cipher='logistic-rc4'"],
        "model.input = 'invariant'",
    ),
    "missing root": (["data.name='cifar10'", "data.root='/no/such/folder'"], "/no/such/folder"),
    "no gpu": (["server.gpus=1"], "server.gpus = 1"),
    "same-key without one": (["inference.queries=['same-key']"], "same-key"),
    "views of one key": (["encryption.views=2", "encryption.keys='same'"], "encryption.views = 2"),
    "impossible quorum": (["server.min_clients=21"], "server.min_clients = 21"),
    "too many faults": (["faults.die=21"], "faults strike 21"),
    "no cluster": (["engine.address='127.0.0.1:1'"], "127.0.0.1:1"),
    "not an override": (["nonsense"], "section.key=value"),
    "a seed for all to see": (["encryption.seed =3"], "FEDENC_KEY_SEED"),
}


def _one_line(done: Finished, word: str) -> None:
    assert done.code not in (0, 70)
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("fedenc: ")
    assert word in lines[0]
    assert not (done.folder / "result.json").exists()


@pytest.mark.parametrize("case", BAD)
def test_a_bad_scenario_is_one_clear_line(tmp_path: Path, case: str) -> None:
    sets, word = BAD[case]
    if case == "no gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    _one_line(simulate_here(tmp_path / "run", *sets), word)


def test_a_process_ends_with_the_same_line(tmp_path: Path) -> None:
    sets, word = BAD["too many participants"]
    done = simulate(tmp_path / "run", *sets)
    _one_line(done, word)
    assert done.code == 2


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    wrong = ("clients.count=0", "clients.alpha=-1", "clients.typo=1", "server.gpus=7")
    done = simulate(tmp_path / "run", *wrong)
    assert done.code == 2
    for word in ("clients.count", "clients.alpha", "clients.typo", "server.gpus"):
        assert word in done.err


def test_an_unknown_option_is_a_usage_error() -> None:
    code, _, err = in_a_process("simulate", "--frobnicate")
    assert code == 2
    assert "--frobnicate" in err


def test_a_missing_preset_names_those_there_are(tmp_path: Path) -> None:
    for name, word in (("nothing-like-it", "photos"), ("missing.toml", "missing.toml")):
        done = simulate_here(tmp_path / "run", preset=name)
        assert done.code == 2
        assert word in done.err


def test_presets_are_listed_and_all_of_them_are_valid() -> None:
    from simulations import presets

    code, out, _ = in_this_process("presets")
    assert code == 0
    assert {"photos", "cifar10-cpu", "cifar10-gpu"} <= set(presets.names())
    for name in presets.names():
        assert name in out
        presets.resolve(name, ())


@pytest.mark.e2e
def test_doctor_finds_what_is_there(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    code, out, err = in_this_process("doctor")
    assert code == 0, out + err
    for word in ("flwr", "ray cluster", "2 CPUs", "cpu", "data: photos"):
        assert word in out
