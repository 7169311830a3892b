"""Where the time of pixel NP+CS goes: microseconds an image in each of its parts.

``OMP_NUM_THREADS=1 python -m benchmarks.ciphers.parts`` prints the median over rounds. Parts that
call others include them; their sum is not the total.
"""

import argparse
import functools
import time
from collections import defaultdict
from statistics import median
from typing import Any

import numpy as np
import torch

from fedenc import ciphers
from fedenc.ciphers import functional
from fedenc.keys import KeyRing
from fedenc.keys.keystream import Keystream

PARTS: tuple[tuple[Any, str], ...] = (
    (Keystream, "_generate"),
    (Keystream, "masks"),
    (Keystream, "integers"),
    (functional, "negative_positive"),
    (functional, "color_shuffle_"),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--images", type=int, default=252)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    spent: dict[str, float] = defaultdict(float)
    for owner, name in PARTS:
        setattr(owner, name, _timed(getattr(owner, name), spent))
    images = torch.randint(256, (given.images, 3, given.size, given.size), dtype=torch.uint8)
    out, cipher, ring = torch.empty_like(images), ciphers.make("pixel"), KeyRing.generate()
    rounds = []
    for _ in range(given.rounds + 1):
        spent.clear()
        start = time.perf_counter()
        stream = ring.keystream(
            method=cipher.name,
            policy="image",
            purpose="train",
            nonce=bytes(16),
            ids=np.arange(given.images),
        )
        cipher.encrypt(images, stream, out=out)
        rounds.append({**spent, "total": time.perf_counter() - start})
    for name in rounds[0]:
        microseconds = median(r[name] for r in rounds[1:]) / given.images * 1e6
        print(f"{name:<18}{microseconds:7.1f} µs an image")


def _timed(function: Any, spent: dict[str, float]) -> Any:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[function.__name__] += time.perf_counter() - start

    return timed


if __name__ == "__main__":
    main()
