"""The command that users type, and what it leaves behind."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "simulations.cli"]
SEED = "encryption.seed='a seed for tests'"
# Six participants with 20 images each and one epoch: seconds, once the engines have started.
SMALL = ["clients.count=6", "clients.images=20", "training.epochs=1", "inference.images=8", SEED]


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())


def arguments(
    folder: Path, *sets: str, preset: str = "photos", more: tuple[str, ...] = ()
) -> list[str]:
    """The command line of one simulation."""
    chosen = [part for value in sets for part in ("--set", value)]
    return [*COMMAND, "simulate", preset, "--out", str(folder), *chosen, *more]
