"""The machine's seed of simulated keys: drawn once, private, and the same for all who ask."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedenc.errors import KeyfileError
from simulations import secret


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_drawn_once_and_private(config: Path) -> None:
    seed = secret.simulation_seed()
    assert len(bytes.fromhex(seed)) == 32
    assert secret.simulation_seed() == seed
    (file,) = (config / "fedenc").iterdir()
    assert file == secret.path()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_another_machine_draws_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = secret.simulation_seed()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert secret.simulation_seed() != first


def test_first_uses_at_once_agree(config: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        seeds = set(pool.map(lambda _: secret.simulation_seed(), range(64)))
    assert len(seeds) == 1
    assert len(list((config / "fedenc").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"0" * 63, b"g" * 64, b"A" * 64, b"\xff\xfe" * 32])
def test_a_damaged_seed_is_refused_not_replaced(config: Path, content: bytes) -> None:
    secret.path().parent.mkdir(parents=True)
    secret.path().write_bytes(content)
    with pytest.raises(KeyfileError, match="remove it to draw a new"):
        secret.simulation_seed()
    assert secret.path().read_bytes() == content


def test_a_place_that_cannot_be_written_is_a_clear_error(config: Path) -> None:
    config.write_text("a file")
    with pytest.raises(KeyfileError, match=r"encryption\.seed"):
        secret.simulation_seed()


def test_a_link_to_nowhere_is_a_clear_error(config: Path) -> None:
    secret.path().parent.mkdir(parents=True)
    secret.path().symlink_to(config / "nowhere")
    with pytest.raises(KeyfileError):
        secret.simulation_seed()
