"""Real Flower and real Ray, through the command that users type."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, Finished, arguments


@pytest.fixture
def simulate(tmp_path: Path) -> Callable[..., Finished]:
    """Run ``fedenc simulate`` and wait for it."""

    def run(*sets: str, name: str = "run", timeout: float = 300, **kwargs: Any) -> Finished:
        folder = tmp_path / name
        done = subprocess.run(
            arguments(folder, *sets, **kwargs),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=timeout,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr, folder)

    return run
