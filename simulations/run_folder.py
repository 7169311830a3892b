"""A run's folder: it belongs to one scenario, and to one process at a time."""

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedenc.errors import EngineError, ScenarioError
from fedenc.files import write_atomically
from fedenc.scenario import Scenario

SCENARIO = "scenario.json"
PROVIDER = "provider"  # the provider's own folder inside a run's: pool and checkpoint
# What may differ when a run is resumed: where it runs, whom it waits for, and who misbehaves.
_MAY_DIFFER = re.compile(
    r"engine\.|clients\.per_node$|server\.(min_clients|deadline|attempts)$|faults\."
    r"|transformation\.(bundle|feature_weights)$"
)


@contextlib.contextmanager
def occupied(folder: Path, scenario: Scenario, resume: bool) -> Iterator[None]:
    """Take the folder for this run alone.

    Raises:
        ScenarioError: it holds another run, or another scenario's.
        EngineError: another process is running there.
    """
    recorded = folder / SCENARIO
    if folder.exists() and not folder.is_dir():
        raise ScenarioError(f"--out {folder} is a file; name a folder")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise ScenarioError(f"{folder} is not empty; name another folder or use --resume")
    if resume and recorded.exists():
        _same_scenario(_read(recorded), scenario, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EngineError(f"another run is going on in {folder}; wait for it to end") from None
        text = json.dumps(scenario.dump(), indent=2)
        write_atomically(recorded, text.encode() + b"\n", mode=0o600)  # it holds the keys' seed
        yield


def _read(recorded: Path) -> dict[str, Any]:
    try:
        values = json.loads(recorded.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ScenarioError(
            f"{recorded} is damaged, so it is unknown which scenario the uploads beside it "
            "belong to; start in another folder"
        )
    return values


def _same_scenario(old: dict[str, Any], scenario: Scenario, folder: Path) -> None:
    """Refuse to continue with another scenario's uploads."""
    flat_old, flat_new = _flat(old), _flat(scenario.dump())
    different = sorted(
        key
        for key in flat_old.keys() | flat_new.keys()
        if flat_old.get(key) != flat_new.get(key) and not _MAY_DIFFER.match(key)
    )
    if different:
        shown = "; ".join(
            f"{k}: {flat_old.get(k)!r} then, {flat_new.get(k)!r} now"
            for k in different
            if k != "encryption.seed"
        )
        raise ScenarioError(
            f"{folder} was begun under another scenario ({shown or 'other keys'}); resume with "
            "the same one, or start in another folder"
        )


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested sections as ``section.key``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key != "options":
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat
