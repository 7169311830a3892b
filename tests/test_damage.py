"""Files of every kind, damaged at random: an error of fedenc's own, or the truth."""

from pathlib import Path

import numpy as np
import pytest
from damage import Kind, kinds, strike


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> list[Kind]:
    return kinds(tmp_path_factory.mktemp("sound"))


def test_damage_is_told_or_does_no_harm(every: list[Kind]) -> None:
    draw = np.random.default_rng(0)
    came = {kind.name: [strike(kind, draw) for _ in range(20)] for kind in every}
    assert len(came) == len(every) > 15
    assert sum("refused" in outcomes for outcomes in came.values()) > 10


def test_a_lie_is_noticed(tmp_path: Path) -> None:
    """The check of the check: a file without any digest."""
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with pytest.raises(AssertionError, match="was read as"):
        strike(Kind("a file", path, path.read_bytes), np.random.default_rng(0))
