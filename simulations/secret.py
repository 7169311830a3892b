"""The default seed of simulated keys: a secret of this machine's user.

A default in the source code would be known to every provider, and with a new one for each run no
two runs would be the same. So it is drawn once, kept in the user's configuration folder, and
recorded in every result, so that another machine can repeat the run.
"""

import contextlib
import os
import secrets
from pathlib import Path

from fedenc.errors import KeyfileError


def path() -> Path:
    """Where the secret is kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "fedenc" / "simulation-seed"


def simulation_seed() -> str:
    """64 hexadecimal digits, made on first use.

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
    return text


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
