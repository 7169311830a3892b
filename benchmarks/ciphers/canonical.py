"""Images a second that are brought into a cipher's canonical form, beside those it encrypts.

``OMP_NUM_THREADS=1 python -m benchmarks.ciphers.canonical --out canonical.json`` measures on one
core, by the process's own seconds, and prints the table of the README. The images are the built-in
photographs, 32×32: on plain areas, which noise does not have, some forms take longer.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ciphers.measure import METHODS, rates, times
from fedenc.ciphers import make
from fedenc.data import load
from fedenc.files import write_atomically
from fedenc.keys import KeyRing
from fedenc.provenance import commit, hardware, versions

Row = dict[str, Any]


def main() -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=3140, help="photographs, twice by default")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for method in METHODS if (row := measure(method, given.images, given.repeats))]
    print(table(rows))
    if given.out:
        found = {"rows": rows, "hardware": hardware(), "versions": versions(), "commit": commit()}
        write_atomically(given.out, json.dumps(found, indent=1).encode() + b"\n")


def measure(method: str, images: int, repeats: int) -> Row | None:
    """Images a second of core time, of ``encrypt`` under independent keys and of ``canonical``;
    None for a cipher without a canonical form."""
    name, params = METHODS[method]
    cipher = make(name, **params)
    data = load("photos")
    every = np.concatenate((data.train.images, data.test.images))
    batch = torch.from_numpy(np.resize(every, (images, *every.shape[1:])))
    layout = cipher.layout(batch)
    if cipher.canonical(layout) is None:
        return None

    def encrypt() -> None:
        ring = KeyRing(bytes(32))
        ids = np.arange(images)
        cipher.encrypt(
            batch,
            ring.keystream(
                method=name, policy="image", purpose="benchmark", nonce=bytes(16), ids=ids
            ),
        )

    return {
        "method": method,
        "images": images,
        "canonical": rates(times(lambda: cipher.canonical(layout), repeats).core, images),
        "encrypt": rates(times(encrypt, repeats).core, images),
    }


def table(rows: list[Row]) -> str:
    """Medians, and the extremes of the canonical form, as Markdown."""
    lines = ["| method | canonical | min–max | encrypt |", "|---|---:|---:|---:|"]
    for row in rows:
        found = row["canonical"]
        lines.append(
            f"| {row['method']} | {found['median']:,.0f} | {found['min']:,.0f}–{found['max']:,.0f} "
            f"| {row['encrypt']['median']:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
