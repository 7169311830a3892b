"""Packages with plug-ins, installed for real into a folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def documented(guide: Path, language: str) -> str:
    """The only block of code in that language in a guide."""
    found = re.findall(rf"```{language}\n(.*?)```", guide.read_text(), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def install(folder: Path, name: str, code: str, entry: str, group: str) -> None:
    """A package of one module, with one entry point."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that finds what is installed in the folder."""
    paths = os.pathsep.join((str(folder), str(ROOT)))
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
