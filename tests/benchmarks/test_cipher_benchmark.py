"""The cipher benchmark measures what it says, and its loops do what the ciphers do."""

import numpy as np
import pytest

from benchmarks.ciphers import canonical, loops, run
from benchmarks.ciphers.measure import METHODS, Case, key_bytes, measure
from fedenc.keys.keystream import integer_bytes


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_measured(method: str) -> None:
    case = Case(method, 16, "image", 40, 2)
    found = measure(case)
    assert {"fedenc", "copy", "keystream"} <= set(found)
    assert ("loop" in found) == (method in loops.LOOPS)
    for clocks in found.values():
        rates = clocks["wall"]
        assert 0 < rates["min"] <= rates["median"] <= rates["max"]
    row = {"method": method, "size": 16, "policy": "image", "device": "cpu"} | found
    assert f"| 16 | image | {method} |" in run.table([row])


def test_key_bytes_are_the_methods() -> None:
    assert key_bytes(Case("pixel NP", 32, "image", 1, 1)) == 384
    assert key_bytes(Case("pixel NP+CS", 32, "image", 1, 1)) == 384 + integer_bytes(6, 1024)
    assert key_bytes(Case("le", 32, "same", 1, 1)) == 96 * 8 + 12
    assert key_bytes(Case("scramble", 32, "same", 1, 1)) == 16 * 8


@pytest.mark.slow
def test_memory_stays_within_four_batches() -> None:
    """In a process of its own: batch and result are two, the rest is slices and subkeys."""
    assert 1.9 < run.peak_memory_alone(Case("pixel NP+CS", 32, "image", 20_000, 1)) < 4


@pytest.mark.parametrize("method", loops.LOOPS)
@pytest.mark.parametrize("policy", ["same", "image"])
def test_loops_hide_and_keep_what_the_method_does(method: str, policy: str) -> None:
    values = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    found = loops.encrypt(method, np.repeat(values, 2, axis=0), policy)
    assert found.shape == (2, 32, 32, 3)
    assert not np.array_equal(found[0], values[0])
    assert np.array_equal(found[0], found[1]) == (policy == "same")
    if method in ("le", "ele"):
        halves = [np.concatenate((x & 15, x >> 4), axis=None) for x in (values, found[0])]
        folded = [np.sort(np.minimum(half, 15 - half)) for half in halves]
    else:
        folded = [np.sort(np.minimum(x, 255 - x), axis=None) for x in (values, found[0])]
    assert np.array_equal(*folded)


@pytest.mark.parametrize("method", METHODS)
def test_canonical_forms_are_measured_where_there_are_any(method: str) -> None:
    row = canonical.measure(method, 20, 2)
    assert (row is None) == (method == "logistic-rc4")
    if row is not None:
        assert row["canonical"]["median"] > 0
        assert canonical.table([row]).splitlines()[-1].startswith(f"| {method} |")
