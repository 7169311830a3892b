"""Images a second of every cipher, beside copying, raw keystream and a loop over images.

``python -m benchmarks.ciphers.run --out benchmarks/ciphers/results.json`` measures and prints the
table of the README. A core's figures count the seconds a process was at work, so that others on the
machine disturb them little; on two cores two processes share the batch and the clock decides.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, cast

from benchmarks.ciphers.measure import METHODS, Case, measure, peak_memory, rates
from fedenc.files import write_atomically
from fedenc.keys import Policy
from fedenc.provenance import commit, hardware, versions

IMAGES = {32: 8192, 96: 1024, 224: 256}
MEMORY_IMAGES = 20_000  # of 32×32
Row = dict[str, Any]

_barrier: Barrier | None = None


def main() -> int:
    """Measure what the command line asks for; print tables, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(IMAGES), help="pixels a side")
    parser.add_argument(
        "--policies", nargs="+", choices=["same", "image"], default=["image", "same"]
    )
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each kind")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; images are there already")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many images")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    given = parser.parse_args()
    cases = [
        Case(
            method,
            size,
            cast(Policy, policy),
            max(2, int(given.scale * IMAGES.get(size, 256))),
            given.repeats,
            given.device,
        )
        for size in given.sizes
        for policy in given.policies
        for method in given.methods
    ]
    found = run(cases)
    print(table(found["rows"]))
    if given.out:
        write_atomically(given.out, json.dumps(found, indent=1).encode() + b"\n")
    return 0


def run(cases: Sequence[Case]) -> Row:
    """Measure all cases; every row names its case."""
    load = os.getloadavg()
    on_cpu = all(case.device == "cpu" for case in cases)
    with _pool(1) as one, _pool(2) as two:
        rows = []
        for case in cases:
            row: Row = {
                "method": case.method,
                "size": case.size,
                "policy": case.policy,
                "images": case.images,
                "repeats": case.repeats,
                "device": case.device,
            }
            row |= one.submit(measure, case).result()
            if on_cpu:
                row["two_cores"] = _together(two, case)
            rows.append(row)
            print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    memory = [_memory(case) for case in cases if on_cpu and case.size == min(c.size for c in cases)]
    return {
        "rows": rows,
        "memory": memory,
        "load_before": load,
        "load_after": os.getloadavg(),
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown: images a second, medians but for the extremes given."""
    heads = ["size", "keys", "method", "core", "min–max", "two cores"]
    heads += ["copy", "keystream", "loop", "× loop"]
    lines = [f"| {' | '.join(heads)} |", "|---:|---|---|" + "---:|" * (len(heads) - 3)]
    for row in rows:
        clock = "core" if row["device"] == "cpu" else "wall"
        mine, loop = row["fedenc"][clock], row.get("loop", {}).get("core", {}).get("median")
        cells = [
            str(row["size"]),
            row["policy"],
            row["method"],
            f"{mine['median']:,.0f}",
            f"{mine['min']:,.0f}–{mine['max']:,.0f}",
            f"{row['two_cores']['median']:,.0f}" if "two_cores" in row else "–",
            f"{row['copy'][clock]['median']:,.0f}",
            f"{row['keystream']['core']['median']:,.0f}",
            f"{loop:,.0f}" if loop else "–",
            f"{mine['median'] / loop:,.0f}" if loop else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    return ProcessPoolExecutor(processes, context, _start, (barrier,))


def _start(barrier: Barrier) -> None:
    global _barrier
    import torch

    _barrier = barrier
    torch.set_num_threads(1)


def _together(pool: ProcessPoolExecutor, case: Case) -> dict[str, float]:
    """Two processes, half the batch each: images a second until both are done."""
    half = replace(case, images=case.images // 2)
    times = [pool.submit(_half, half) for _ in range(2)]
    slower = [max(pair) for pair in zip(*(each.result() for each in times), strict=True)]
    return rates(slower, 2 * half.images)


def _half(case: Case) -> list[float]:
    assert _barrier is not None
    cipher, batch = case.cipher(), case.batch()
    out = cipher.encrypt(batch, case.keystream())
    found = []
    for _ in range(case.repeats + 1):
        _barrier.wait(120)
        start = time.perf_counter()
        cipher.encrypt(batch, case.keystream(), out=out)
        found.append(time.perf_counter() - start)
    return found[1:]


def _memory(case: Case) -> Row:
    case = replace(case, images=MEMORY_IMAGES * 32**2 // case.size**2)
    peak = peak_memory_alone(case)
    return {"method": case.method, "policy": case.policy, "times_the_batch": peak}


def peak_memory_alone(case: Case) -> float:
    """``measure.peak_memory`` in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(peak_memory, case).result()


if __name__ == "__main__":
    sys.exit(main())
