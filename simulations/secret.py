"""The seed of simulated keys: given by file or environment, or derived from a secret.

A default in the source code would be known to every provider, and with a new one for each run no
two runs would be the same. So a secret of this machine's user is drawn once and kept in the user's
configuration folder. Every scenario gets a seed of its own, derived from the secret and the
scenario's hash, which is recorded in the run's result, so that another machine can repeat the run:
whoever is shown one result learns no other run's keys.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from fedenc.errors import KeyfileError, ScenarioError

KEY, VARIABLE = "encryption.seed", "FEDENC_KEY_SEED"


def path() -> Path:
    """Where the secret is kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "fedenc" / "simulation-seed"


def simulation_seed(scenario_hash: str) -> str:
    """The default seed of a scenario, 64 hexadecimal digits; the secret is drawn on first use.

    Raises:
        KeyfileError: the file cannot be made or read, or holds something else.
    """
    file = path()
    try:
        if not file.exists():
            _draw(file)
        text = file.read_text().strip()
    except OSError as error:
        raise KeyfileError(
            f"the seed of simulated keys cannot be kept at {file}: {error.strerror}; set "
            "encryption.seed, or XDG_CONFIG_HOME to a folder that can be written"
        ) from None
    except UnicodeDecodeError:
        text = ""
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise KeyfileError(
            f"{file} does not hold 64 hexadecimal digits; remove it to draw a new seed"
        )
    secret = bytes.fromhex(text)
    return hashlib.blake2b(scenario_hash.encode(), digest_size=32, key=secret).hexdigest()


def overrides(sets: Sequence[str]) -> list[str]:
    """Overrides of a command line, and the seed that ``$FEDENC_KEY_SEED`` gives, if it does. The
    variable is then unset: processes that are started later do not inherit it.

    Raises:
        ScenarioError: a seed is among the overrides.
    """
    if any(one.partition("=")[0].strip() == KEY for one in sets):
        raise ScenarioError(
            f"{KEY} is on the command line, where `ps` and Ray's table of jobs show it; give it in "
            f"the scenario file or as ${VARIABLE}"
        )
    given = os.environ.pop(VARIABLE, None)
    return [*sets] if given is None else [*sets, f"{KEY}={given}"]


def _draw(file: Path) -> None:
    """Put a new secret in place in one step, so that two first runs at once use the same one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(secrets.token_hex(32))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(fresh, file)
    finally:
        fresh.unlink()
