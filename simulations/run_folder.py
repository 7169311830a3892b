"""A run's folder: it belongs to one scenario, and to one process at a time."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedenc import documents
from fedenc.errors import EngineError, ScenarioError
from fedenc.files import locked, unwritable, write_atomically
from fedenc.scenario import Scenario, load_json

LOCK = ".lock"
OUTPUT = "output.txt"  # what a study's run printed
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
        ScenarioError: it holds another run, another scenario's, or no run at all.
        DataError: it cannot be written.
        EngineError: another process is running there.
    """
    recorded = folder / SCENARIO
    if folder.exists() and not folder.is_dir():
        raise ScenarioError(f"--out {folder} is a file; name a folder")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise ScenarioError(f"{folder} is not empty; name another folder or use --resume")
    if resume and recorded.exists():
        _same_scenario(_read(recorded), scenario, folder)
    elif resume and (foreign := sorted(_names(folder) - {LOCK, OUTPUT})):
        raise ScenarioError(
            f"{folder} holds {foreign[0]!r}, but no run ({SCENARIO}) that could go on; name the "
            "folder of an interrupted run, or a new one"
        )
    busy = EngineError(f"another run is going on in {folder}; wait for it to end")
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / LOCK, busy=busy))
        except OSError as error:
            raise unwritable(folder, error) from error
        text = json.dumps(documents.sealed(scenario.dump()), indent=2)
        write_atomically(recorded, text.encode() + b"\n", mode=0o600)  # it holds the keys' seed
        yield


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def _read(recorded: Path) -> dict[str, Any]:
    try:
        return load_json(recorded.read_bytes())
    except (OSError, ValueError) as error:
        raise ScenarioError(
            f"{recorded} is damaged ({error}), so it is unknown which scenario the uploads beside "
            "it belong to; start in another folder"
        ) from None


def recorded_seed(folder: Path) -> int | str | None:
    """The seed of the simulated keys of the run that was begun in a folder; None: none was.

    Raises:
        ScenarioError: its record is damaged.
    """
    recorded = folder / SCENARIO
    encryption = _read(recorded).get("encryption") if recorded.exists() else None
    seed = encryption.get("seed") if isinstance(encryption, dict) else None
    return seed if isinstance(seed, int | str) else None


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
