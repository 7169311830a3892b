"""Images a second of a training alone and of two at once, by how long idle threads spin.

``python -m benchmarks.side_by_side.run --out results.json`` measures and prints a table. Settings
take turns within a round, in a changing order, so that all meet the machine in much the same state.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from fedenc.files import write_atomically
from fedenc.provenance import commit, hardware, versions
from fedenc.threads import SPIN_COUNT, WAITING

Row = dict[str, Any]
SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's own": {},  # spins 300,000 times
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},  # sleeps at once
    "fedenc's": {"GOMP_SPINCOUNT": SPIN_COUNT},
}
IMAGES, BATCH = 128, 64  # images of one repetition, and of a step


def main() -> None:
    """Measure what the command line asks for; print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--seconds", type=float, default=15.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spin", type=int, nargs="*", default=[], help="further spin counts")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        _train(given.model, given.seconds)
        return
    settings = SETTINGS | {f"spin {n}": {"GOMP_SPINCOUNT": str(n)} for n in given.spin}
    found = run(given.model, settings, seconds=given.seconds, rounds=given.rounds)
    print(table(found))
    if given.out:
        write_atomically(given.out, json.dumps(found, indent=2).encode() + b"\n")


def run(name: str, settings: dict[str, dict[str, str]], *, seconds: float, rounds: int) -> Row:
    """Every setting once a round, alone and in a pair, and a summary."""
    turns = random.Random(0)
    load = os.getloadavg()[0]
    speeds: dict[str, dict[int, list[list[float]]]] = {s: {1: [], 2: []} for s in settings}
    for _ in range(rounds):
        uses = [(setting, count) for setting in settings for count in (1, 2)]
        for setting, count in turns.sample(uses, len(uses)):
            measured = _speeds(name, settings[setting], count, seconds)
            speeds[setting][count].append(measured)
    beside = [speed for (speed,) in speeds[next(iter(settings))][1]]
    return {
        "rows": [_summary(setting, speeds[setting], beside) for setting in settings],
        "settings": {
            "model": name,
            "seconds": seconds,
            "rounds": rounds,
            "batch_size": BATCH,
            "threads": os.cpu_count(),
            "load_before": load,
            "environments": settings,
        },
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }


def _speeds(name: str, environment: dict[str, str], count: int, seconds: float) -> list[float]:
    """Images a second of so many trainings that start together."""
    inherited = {k: v for k, v in os.environ.items() if k not in WAITING}
    command = [sys.executable, "-m", "benchmarks.side_by_side.run", "--train"]
    command += ["--model", name, "--seconds", str(seconds)]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    env=inherited | environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()  # it is ready
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        return [float(child.communicate()[0]) for child in children]


def _train(name: str, seconds: float) -> None:
    """Train on random images, on all cores, from a line on standard input for so many seconds."""
    import torch

    from benchmarks.training import minimal
    from fedenc import models, seeding
    from fedenc.training.config import TrainingConfig

    torch.set_num_threads(os.cpu_count() or 1)
    generator = seeding.generator(0, "benchmark")
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (IMAGES,), generator=generator)
    model = models.build(name, channels=3, classes=10, size=(32, 32))
    config = TrainingConfig(epochs=1, batch_size=BATCH, precision="fp32", learning_rate=0.01)

    def repeat() -> None:
        minimal.train(model, images, labels, config, torch.device("cpu"))

    repeat()
    print("ready", flush=True)
    sys.stdin.readline()
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        repeat()
        done += IMAGES
    print(done / passed if done else 0.0)


def _summary(setting: str, measured: dict[int, list[list[float]]], beside: list[float]) -> Row:
    """Medians and quartiles, and what they are of one training alone with libgomp's own setting."""
    whole = median(beside)
    row: Row = {"setting": setting}
    for use, count in (("alone", 1), ("together", 2)):
        speeds = [speed for pair in measured[count] for speed in pair]
        row[use] = {
            "images_per_second": median(speeds),
            "quartiles": quantiles(speeds, n=4, method="inclusive")[::2],
            "share": median(speeds) / whole,
            "n": len(speeds),
        }
    return row


def table(found: Row) -> str:
    """The figures as Markdown."""
    lines = ["| waiting | alone | share | each of two | share |", "|---|---:|---:|---:|---:|"]
    for row in found["rows"]:
        cells = [
            f"{row[use]['images_per_second']:.0f} ({low:.0f}–{high:.0f}) | {row[use]['share']:.0%}"
            for use in ("alone", "together")
            for low, high in [row[use]["quartiles"]]
        ]
        lines.append(f"| {row['setting']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
