"""The machine's seed of simulated keys: drawn once, private, and the same for all who ask."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedenc.errors import KeyfileError, ScenarioError
from fedenc.scenario import load
from simulations import secret

HASH = "a scenario's hash"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_drawn_once_and_private(config: Path) -> None:
    seed = secret.simulation_seed(HASH)
    assert len(bytes.fromhex(seed)) == 32
    assert secret.simulation_seed(HASH) == seed
    (file,) = (config / "fedenc").iterdir()
    assert file == secret.path()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_scenario_tells_nothing_of_another_ones_seed() -> None:
    seeds = {secret.simulation_seed(scenario_hash) for scenario_hash in ("a", "b", "c")}
    assert len(seeds) == 3
    assert secret.path().read_text() not in seeds


@pytest.mark.parametrize("text", ["encryption.seed=3", " encryption.seed = 'x'", "encryption.seed"])
def test_a_seed_is_refused_where_others_see_it(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"command line.*FEDENC_KEY_SEED"):
        secret.overrides(["seed=4", text])


def test_the_environment_gives_a_seed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret.overrides(["seed=4"]) == ["seed=4"]
    for given, seed in (("3", 3), ("'3'", "3"), ("a seed for tests", "a seed for tests")):
        monkeypatch.setenv(secret.VARIABLE, given)
        assert load(None, secret.overrides([])).encryption.seed == seed
        assert secret.VARIABLE not in os.environ, "for processes that are started later"


def test_another_machine_draws_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = secret.simulation_seed(HASH)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert secret.simulation_seed(HASH) != first


def test_first_uses_at_once_agree(config: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        seeds = set(pool.map(lambda _: secret.simulation_seed(HASH), range(64)))
    assert len(seeds) == 1
    assert len(list((config / "fedenc").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"0" * 63, b"g" * 64, b"A" * 64, b"\xff\xfe" * 32])
def test_a_damaged_seed_is_refused_not_replaced(config: Path, content: bytes) -> None:
    secret.path().parent.mkdir(parents=True)
    secret.path().write_bytes(content)
    with pytest.raises(KeyfileError, match="remove it to draw a new"):
        secret.simulation_seed(HASH)
    assert secret.path().read_bytes() == content


def test_a_place_that_cannot_be_written_is_a_clear_error(config: Path) -> None:
    config.write_text("a file")
    with pytest.raises(KeyfileError, match=r"encryption\.seed"):
        secret.simulation_seed(HASH)


def test_a_link_to_nowhere_is_a_clear_error(config: Path) -> None:
    secret.path().parent.mkdir(parents=True)
    secret.path().symlink_to(config / "nowhere")
    with pytest.raises(KeyfileError):
        secret.simulation_seed(HASH)
