"""Public randomness: everything random, except keys, is a function of a seed and a purpose.

Two draws for different purposes are independent, and no draw depends on how many were made before
it. Keys never come from here; see :mod:`fedenc.keys`.
"""

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Purpose = str | int


def derive(seed: int, *purpose: Purpose) -> int:
    """A 63-bit seed for one purpose, the same on every machine and version."""
    words = json.dumps([int(seed), *purpose], separators=(",", ":"), ensure_ascii=True)
    digest = hashlib.blake2b(words.encode(), digest_size=8, person=b"fedenc-train").digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *purpose: Purpose) -> "torch.Generator":
    """A torch generator on the CPU for one purpose. Draws are made on the CPU on every machine, so
    that a GPU sees the samples in the same order."""
    import torch

    return torch.Generator("cpu").manual_seed(derive(seed, *purpose))


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    entropy = np.random.SeedSequence([seed, *purpose.encode()])
    return np.random.Generator(np.random.Philox(entropy))
