"""Images a second of the training loop, in several uses, beside a hand-written minimal loop.

``python -m benchmarks.training.run --out results.json`` measures and prints a table. The uses
take turns within a round, in a changing order, so that all meet the machine in much the same state.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from benchmarks.training import minimal
from fedenc import ciphers, models, seeding
from fedenc.files import write_atomically
from fedenc.keys import KeyRing
from fedenc.models.network import Network
from fedenc.provenance import commit, hardware, versions
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Reports, fit
from fedenc.training.training_set import TrainingSet

Row = dict[str, Any]
MINIMAL, PLAIN, ENCRYPTED, AUGMENTED, WATCHED = KINDS = (
    "minimal",  # the hand-written loop, plain images
    "plain",  # the library's loop, plain images
    "encrypted",  # the same on NP+CS ciphertext
    "augmented",  # encrypted, with random crop and flip
    "watched",  # encrypted, with a checkpoint written and a report every second
)
COMPARED = {
    MINIMAL: MINIMAL,
    PLAIN: MINIMAL,
    ENCRYPTED: PLAIN,
    AUGMENTED: ENCRYPTED,
    WATCHED: ENCRYPTED,
}
Data = tuple[Tensor, Tensor, torch.device]  # images uint8 N×C×H×W, labels int64 N, where to train


def main() -> None:
    """Measure what the command line asks for; print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=models.names(), default="resnet20")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    config = TrainingConfig(
        epochs=given.epochs,
        batch_size=given.batch_size,
        precision=given.precision,
        compile=given.compile,
    )
    device = torch.device(given.device)
    found = run(given.model, given.images, config, device, rounds=given.rounds)
    found["settings"]["threads"] = given.threads
    print(table(found))
    if given.out:
        write_atomically(given.out, json.dumps(found, indent=2).encode() + b"\n")


def run(
    name: str, images: int, config: TrainingConfig, device: torch.device, *, rounds: int
) -> Row:
    """Every use once a round, after a round that is not counted, and a summary."""
    plain, encrypted, labels = _data(images)
    turns = random.Random(0)
    speeds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    load = os.getloadavg()[0]
    for number in range(rounds + 1):
        for kind in turns.sample(KINDS, len(KINDS)):
            data = plain if kind in (MINIMAL, PLAIN) else encrypted
            model = models.build(name, channels=3, classes=10, size=(32, 32))
            model.input.measure(data)  # the minimal loop does not
            seconds = _seconds(kind, model, (data, labels, device), config)
            if number:
                speeds[kind].append(images * config.epochs / seconds)
    return {
        "rows": [_summary(kind, speeds) for kind in KINDS],
        "device_memory": _memory(name, (encrypted, labels, device), config),
        "settings": {
            "model": name,
            "images": images,
            "rounds": rounds,
            "device": str(device),
            "load_before": load,
            "training": config.as_dict(),
        },
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }


def _data(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = seeding.generator(0, "benchmark")
    plain = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    keystream = KeyRing.simulated(0, 0).keystream(
        method="pixel",
        policy="image",
        purpose="train",
        nonce=bytes(16),
        ids=torch.arange(count).numpy(),
    )
    encrypted = ciphers.make("pixel", color_shuffle=True).encrypt(plain, keystream)
    return plain, encrypted, torch.randint(0, 10, (count,), generator=generator)


def _seconds(kind: str, model: Network, data: Data, config: TrainingConfig) -> float:
    """Time of one use, without setting up."""
    images, labels, device = data
    if kind == MINIMAL:
        return minimal.train(model, images, labels, config, device)
    if kind == AUGMENTED:
        config = replace(config, augmentation="crop-flip")
    watched = kind == WATCHED
    reports = Reports(seconds=1.0 if watched else None)
    training_set = TrainingSet(images, labels)
    run = fit(model, training_set, config, seed=0, device=device, reports=reports)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for progress in run:
            if watched:
                write_atomically(Path(folder) / "checkpoint", run.checkpoint())
                print(f"step {progress.step}, loss {progress.loss:.3f}", file=sys.stderr)
        return time.perf_counter() - start


def _summary(kind: str, speeds: dict[str, list[float]]) -> Row:
    """Median and quartiles of the speed, and the median over rounds of its ratio to another's."""
    low, middle, high = quantiles(speeds[kind], n=4, method="inclusive")
    beside = COMPARED[kind]
    pairs = zip(speeds[kind], speeds[beside], strict=True)
    return {
        "use": kind,
        "images_per_second": middle,
        "quartiles": [low, high],
        "beside": beside,
        "ratio": median(one / other for one, other in pairs),
        "n": len(speeds[kind]),
    }


def _memory(name: str, data: Data, config: TrainingConfig) -> Row | None:
    """Bytes on a GPU: the pool, the most in use, and how much of that a second pool would be."""
    images, labels, device = data
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    model = models.build(name, channels=3, classes=10, size=(32, 32))
    once = replace(config, epochs=1)
    for _ in fit(model, TrainingSet(images, labels), once, seed=0, device=device):
        pass
    return {"pool": images.nbytes, "peak": torch.cuda.max_memory_allocated(device)}


def table(found: Row) -> str:
    """The figures as Markdown."""
    lines = ["| use | images/s | quartiles | ratio | beside |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        low, high = row["quartiles"]
        lines.append(
            f"| {row['use']} | {row['images_per_second']:.0f} | {low:.0f}–{high:.0f} "
            f"| {row['ratio']:.3f} | {row['beside']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
