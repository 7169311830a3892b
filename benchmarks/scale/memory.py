"""Memory of this process."""

import os
from pathlib import Path


def peak_resident() -> int:
    """The highest resident memory of this process so far, in bytes.

    Not ``ru_maxrss``, which starts at what the process had that started this one.
    """
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def resident() -> int:
    """Resident memory now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
