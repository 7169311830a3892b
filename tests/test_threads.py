"""Threads that wait: briefly by default, as the user says otherwise, set before torch is there."""

import subprocess
import sys

import pytest

from fedenc.threads import SPIN_COUNT, spin_briefly


def test_threads_spin_briefly_by_default() -> None:
    environment = {"HOME": "/"}
    spin_briefly(environment)
    assert environment == {"HOME": "/", "GOMP_SPINCOUNT": SPIN_COUNT}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_stays(name: str) -> None:
    environment = {name: "as the user likes"}
    spin_briefly(environment)
    assert environment == {name: "as the user likes"}


def test_the_command_can_set_it_before_torch_is_imported() -> None:
    code = "import sys, simulations.cli, simulations.engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
