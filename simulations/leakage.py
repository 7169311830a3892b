"""What a provider can make of a run's uploads: the quick attacks, which end every simulation."""

import time
from pathlib import Path
from typing import Any

from fedenc import attacks
from fedenc.attacks.base import Attack, Means
from fedenc.attacks.judge import Judge, Row, describe
from fedenc.attacks.suite import attempt
from fedenc.errors import AttackError
from fedenc.files import write_atomically
from simulations import attacked
from simulations.experiment import Experiment

SAMPLE = attacked.Sample(images=100, public=400, foils=1_000)
OBSERVER, PICTURE = "observe", "observer.png"
SECONDS, SHARE = 5.0, 0.1  # attacks start within the larger of these: absolute, and of the run
_KEPT = (
    *("attack", "knowledge", "status", "reason", "targets", "seconds", "key_recovered"),
    *("linked", "false_links", "candidates", "ssim_uniform7", "ssim_gaussian11", "psnr", "edges"),
    *("rank",),
)


def quick() -> list[Attack]:
    """The attacks that take seconds, and say most."""
    return [
        attacks.make(name) for name in attacks.names() if attacks.registry.REGISTRY.find(name).quick
    ]


def measure(experiment: Experiment, folder: Path, run_seconds: float) -> dict[str, Any] | None:
    """Attack a sample of the uploads; None if nobody uploaded protected images. Also draws some of
    them: plain, protected, and as anyone sees them without a key.

    Args:
        folder: the run's.
        run_seconds: how long the run took so far.

    Returns:
        ``images``, ``seconds`` and ``rows``: of every attack that applies what docs/attacks.md
        describes, without intervals.
    """
    start = time.perf_counter()
    try:
        target = attacked.of_experiment(experiment, folder, SAMPLE)
    except AttackError:
        return None
    judge, rows = Judge(target), list[Row]()
    for name in attacks.names():
        try:
            attack = attacks.make(name) if attacks.registry.REGISTRY.find(name).quick else None
        except Exception as error:  # of a package that adds it; the run is not to suffer
            rows.append({"attack": name, "knowledge": [], "status": "failed", "reason": str(error)})
            continue
        if attack is None or not attack.is_quick(target.method):
            continue
        if time.perf_counter() - start > max(SECONDS, SHARE * run_seconds):
            known = describe(attack, target)
            rows.append(_short(known | {"status": "not started", "reason": "no time was left"}))
            continue
        scored = attempt(attack, judge, Means())
        if name == OBSERVER and scored.picture is not None:
            write_atomically(folder / PICTURE, scored.picture, mode=0o600)
        if scored.row["status"] != "does not apply":
            rows.append(_short(scored.row))
    return {"images": len(target.uploads), "seconds": time.perf_counter() - start, "rows": rows}


def _short(row: Row) -> Row:
    """Without parameters and intervals, which are for those who look closer."""
    kept = {key: row[key] for key in _KEPT if row.get(key) is not None}
    if controls := row["control"]:
        kept["control"] = {
            name: {key: value for key, value in found.items() if key in _KEPT}
            for name, found in controls.items()
        }
    return kept
