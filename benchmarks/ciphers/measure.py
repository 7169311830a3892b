"""One measurement: a method, a size, a key policy, in this process, on the cores it is given."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.ciphers import loops
from fedenc.ciphers import make
from fedenc.ciphers.base import Cipher
from fedenc.keys import KeyRing, Keystream, Policy

METHODS: dict[str, tuple[str, dict[str, bool]]] = {
    "pixel NP": ("pixel", {"color_shuffle": False}),
    "pixel NP+CS": ("pixel", {}),
    "etc": ("etc", {}),
    "etc-gray": ("etc-gray", {}),
    "le": ("le", {}),
    "ele": ("ele", {}),
    "logistic-rc4": ("logistic-rc4", {}),
    "scramble": ("scramble", {}),
}
LOOP_SHARE = 32  # the loop gets this part of the images


@dataclass(frozen=True)
class Case:
    """What is measured: method, pixels a side, key policy, images in a batch, repetitions."""

    method: str
    size: int
    policy: Policy
    images: int
    repeats: int
    device: str = "cpu"

    def cipher(self) -> Cipher:
        """The method's cipher."""
        name, params = METHODS[self.method]
        return make(name, **params)

    def batch(self) -> torch.Tensor:
        """Random images, (N, 3, size, size)."""
        shape = (self.images, 3, self.size, self.size)
        values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return torch.from_numpy(values).to(self.device)

    def keystream(self) -> Keystream:
        """Fresh key material for the batch."""
        return KeyRing(bytes(32)).keystream(
            method=METHODS[self.method][0],
            policy=self.policy,
            purpose="benchmark",
            nonce=bytes(16),
            ids=np.arange(self.images),
        )


@dataclass(frozen=True)
class Times:
    """Seconds of every repetition: on the wall's clock, and of this process on a core."""

    wall: list[float]
    core: list[float]


def times(step: Callable[[], Any], repeats: int, device: str = "cpu") -> Times:
    """Time a step, after a repetition that does not count."""
    wall, core = [], []
    for _ in range(repeats + 1):
        start, busy = time.perf_counter(), time.process_time()
        step()
        if device != "cpu":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - start)
        core.append(time.process_time() - busy)
    return Times(wall[1:], core[1:])


def measure(case: Case, beside: bool = True) -> dict[str, Any]:
    """Images a second of the method, key derivation included, and of what it stands beside.

    Returns:
        For ``fedenc`` and, if beside, ``copy``, ``keystream`` and ``loop`` (where there is one):
        images a second on the wall's clock (``wall``) and a second of work (``core``), which are
        the same on an idle machine.
    """
    cipher, batch = case.cipher(), case.batch()
    out = cipher.encrypt(batch, case.keystream())
    steps: dict[str, tuple[Callable[[], Any], int]] = {
        "fedenc": (lambda: cipher.encrypt(batch, case.keystream(), out=out), case.images)
    }
    if beside:
        into = torch.empty_like(batch)
        steps["copy"] = (lambda: into.copy_(batch), case.images)
        needed = key_bytes(case)
        steps["keystream"] = (lambda: raw_keystream(case, needed), case.images)
        if case.method in loops.LOOPS:
            few = batch[: max(1, case.images // LOOP_SHARE)].permute(0, 2, 3, 1).cpu().numpy()
            few = np.ascontiguousarray(few)
            steps["loop"] = (lambda: loops.encrypt(case.method, few, case.policy), len(few))
    found = {}
    for name, (step, images) in steps.items():
        taken = times(step, case.repeats, case.device)
        found[name] = {
            "wall": rates(taken.wall, images),
            "core": rates(taken.core, images),
        }
    return found


def rates(seconds: list[float], images: int) -> dict[str, float]:
    """Images a second: median, minimum and maximum."""
    return {
        "median": round(images / median(seconds), 1),
        "min": round(images / max(seconds), 1),
        "max": round(images / min(seconds), 1),
    }


def key_bytes(case: Case) -> int:
    """Keystream bytes that an image's key takes."""

    class Counting(Keystream):
        taken = 0

        def _take(self, n: int) -> Any:
            self.taken += n
            return super()._take(n)

    counting = Counting([bytes(32)], 1)
    case.cipher().draw(counting, 3, case.size, case.size)
    return counting.taken


def raw_keystream(case: Case, n: int) -> None:
    """The bytes alone, for all images, a slice at a time as ciphers do; subkeys are given."""
    streams = 1 if case.policy == "same" else case.images
    width = max(1, (1 << 20) // (3 * case.size**2))
    for start in range(0, streams, width):
        part = [_SUBKEY] * (min(start + width, streams) - start)
        Keystream(part, len(part)).prefetch(n)


_SUBKEY = bytes(range(32))


def peak_memory(case: Case) -> float:
    """Peak of resident memory over what it was before, as a multiple of the batch.

    Counts the batch itself and the result. For a fresh process on Linux.
    """
    cipher = case.cipher()
    warm = Case(case.method, case.size, case.policy, 2, 1)
    cipher.encrypt(warm.batch(), warm.keystream())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _resident("VmRSS")
    batch = torch.from_numpy(np.full((case.images, 3, case.size, case.size), 7, np.uint8))
    cipher.encrypt(batch, case.keystream())
    return round((_resident("VmHWM") - before) / batch.numel(), 2)


def _resident(field: str) -> int:
    """Bytes, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))
