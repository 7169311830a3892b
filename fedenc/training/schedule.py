"""Learning rate as a pure function of the step, so that a resumed run needs no schedule state."""

import math

from fedenc.training.config import TrainingConfig

_START, _END = 25.0, 1e4  # onecycle: the rate starts at max/25 and ends at that, divided by 10,000


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """The rate of step ``step`` (0-based) in a run of ``steps``.

    constant; step: × gamma at each milestone; cosine: annealed to 0 (Loshchilov & Hutter, ICLR
    2017, eq. 5); onecycle: up from max/25 over ``warmup`` of the run, then down, both as half
    cosines (Smith & Topin, 2019).
    """
    top = config.learning_rate
    if config.schedule == "step":
        passed = sum(step >= round(m * steps) for m in config.milestones)
        return top * config.gamma**passed
    if config.schedule == "cosine":
        return _anneal(top, 0.0, step / steps)
    if config.schedule == "onecycle":
        peak = config.warmup * steps - 1
        if step <= peak:
            return _anneal(top / _START, top, step / peak) if peak > 0 else top
        rest = steps - 1 - max(peak, 0.0)
        return _anneal(top, top / _START / _END, (step - max(peak, 0.0)) / rest if rest > 0 else 0)
    return top


def _anneal(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
