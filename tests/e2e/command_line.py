"""The command that users type, and what it leaves behind."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from simulations import cli, secret

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "simulations.cli"]
# As in a user's shell: no Ray to join, and as many threads as there are cores.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("RAY_") and not name.endswith("_NUM_THREADS")
}
SEED = "encryption.seed='a seed for tests'"
# Six participants with 20 images each, one model and one epoch: seconds, once the engines run.
FEW = ["clients.count=6", "clients.images=20", "inference.images=8"]
SMALL = [*FEW, "training.epochs=1", "model.compare=[]", SEED]


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        return json.loads((self.folder / "result.json").read_text())


def simulate(folder: Path, *sets: str, **kwargs: Any) -> Finished:
    """Run ``fedenc simulate`` as users do, in a process of its own and with its own Ray."""
    return Finished(*in_a_process(*words(folder, *sets, **kwargs)), folder)


def simulate_here(folder: Path, *sets: str, **kwargs: Any) -> Finished:
    """The same in this process."""
    return Finished(*in_this_process(*words(folder, *sets, **kwargs)), folder)


def words(folder: Path, *sets: str, preset: str = "photos", more: Iterable[str] = ()) -> list[str]:
    """The arguments of one simulation."""
    chosen = [part for value in sets for part in ("--set", value)]
    return ["simulate", preset, "--out", str(folder), *chosen, *more]


def in_a_process(*arguments: str, timeout: float = 300) -> tuple[int, str, str]:
    """Run a command as users do; its exit code, output and errors."""
    words, seed = without_seed(arguments)
    done = subprocess.run(
        [*COMMAND, *words],
        env=ENVIRONMENT | seed,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def in_this_process(*arguments: str) -> tuple[int, str, str]:
    """The same without a new interpreter, which takes seconds to import everything."""
    out, err = io.StringIO(), io.StringIO()
    words, seed = without_seed(arguments)
    with (
        mock.patch.dict(os.environ, seed),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.execute(words)
    return code, out.getvalue(), err.getvalue()


def without_seed(arguments: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Arguments without the keys' seed, which no command line may show, and the variable for it."""
    given = list(arguments)
    found = [i for i, word in enumerate(given) if word.startswith("encryption.seed=")]
    seed = {secret.VARIABLE: given[found[-1]].partition("=")[2]} if found else {}
    return [w for i, w in enumerate(given) if not {i, i + 1} & set(found)], seed
