"""Where a figure comes from: versions, hardware and commit."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import fedenc

PACKAGES = ("torch", "torchvision", "numpy", "flwr", "ray", "cryptography", "scikit-image")


def versions() -> dict[str, str]:
    """Versions of the installed packages that a result depends on."""
    found = {"fedenc": fedenc.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # Flower and Ray, where nothing but training runs
            continue
    return found


def hardware() -> dict[str, Any]:
    """The machine a figure was measured on."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "gpus": gpus,
        "system": platform.platform(),
    }


def command() -> str | None:
    """The command line, as it can be typed again; None in another program."""
    program = Path(sys.argv[0])
    if program.name == "fedenc" or program.parent.name == "simulations":
        return shlex.join(("fedenc", *sys.argv[1:]))
    return None


def commit() -> str | None:
    """The commit of a source checkout, with ``-dirty`` if it was changed; None when installed."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
