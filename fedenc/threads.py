"""How torch's threads wait for each other on a CPU. Imports nothing, since torch reads it once."""

import os
from collections.abc import MutableMapping

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # environment variables of libgomp
SPIN_COUNT = "1000"


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have threads that wait spin a little and then sleep; what the user has set stays.

    libgomp's own default is to spin for milliseconds, which costs nothing while a training has the
    machine to itself. Where two share the cores, threads then burn the time that those they wait
    for would need, and each runs at a tenth of its speed. Call this before torch is imported.
    ``benchmarks/side_by_side`` measures it.
    """
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
