"""How torch's threads wait for each other on a CPU. Imports no torch, which reads it only once."""

import os
from collections.abc import MutableMapping

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # environment variables of libgomp
SPIN_COUNT = "2000"


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads spin only briefly before they sleep; what the user has set is kept.

    By default libgomp's threads spin for milliseconds, which suits a training that has the machine
    to itself. If two share the cores, waiting threads use the time that the threads they wait for
    need. ``benchmarks/side_by_side`` measures what two gain and one alone loses by spinning less.
    Call this before torch is imported.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
