"""Keys, seeds of keys and plain training pixels never reach the provider.

One run is watched: every reply as it leaves Flower's grid, the log, the pool's files, checkpoints
and the provider's view of the scenario. Then canaries are looked for in all of it.
"""

import pickle
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from command_line import simulate_here
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from clients.simulated import Population
from fedenc.keys import KeyRing
from fedenc.scenario import ProviderView, Scenario
from simulations.experiment import prepare
from simulations.presets import resolve

pytestmark = pytest.mark.e2e
SEED = "canary-7f3a9c51e2d84b60"
RUN = 64  # bytes
SETS = [
    "clients.count=5",
    "clients.images=12",
    "clients.plain_fraction=0.2",
    "encryption.keys='client'",
    f"encryption.seed='{SEED}'",
    "training.epochs=2",
    "inference.images=5",
    "faults.raise=1",
]


class _Watched:
    """A grid that keeps a copy of everything it hands to the provider."""

    def __init__(self, grid: Any, seen: list[bytes]) -> None:
        self._grid, self._seen = grid, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def pull_messages(self, ids: Any) -> Any:
        replies = list(self._grid.pull_messages(ids))
        self._seen.extend(pickle.dumps(reply) for reply in replies)
        return replies


def _windows(data: bytes | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """A polynomial hash modulo 2^64 of every run of 64 bytes."""
    values = np.frombuffer(data, np.uint8).astype(np.uint64)
    hashes = np.zeros(len(values) - RUN + 1, np.uint64)
    for i in range(RUN):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += values[i : i + len(hashes)]
    return hashes


def _among(
    hashes: npt.NDArray[np.uint64], ordered: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Which hashes stand in an ascending array."""
    places = np.searchsorted(ordered, hashes).clip(max=len(ordered) - 1)
    return ordered[places] == hashes


def _telling(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which runs change at least 8 times from byte to byte: flat ones stand anywhere."""
    changes = (np.diff(data.astype(np.int16)) != 0).astype(np.int64)
    return np.convolve(changes, np.ones(RUN - 1, np.int64), mode="valid") >= 8


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, bytes, ProviderView]:
    folder = tmp_path_factory.mktemp("canary")
    seen: list[bytes] = []
    original = ServerApp.__call__

    def call(app: ServerApp, grid: Grid, context: Context) -> None:
        original(app, cast(Grid, _Watched(grid, seen)), context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerApp, "__call__", call)
        done = simulate_here(folder, *SETS)
    assert done.code == 0, done.err
    files = [p for p in (folder / "provider").rglob("*") if p.is_file()]
    assert {"pool.bin", "index.jsonl"} <= {p.name for p in files}
    assert any(p.name.startswith("checkpoint") for p in files)
    seen += [p.read_bytes() for p in (*files, folder / "log.txt")]
    scenario = resolve("photos", SETS)[1]
    told = prepare(scenario).provider_view
    seen.append(told.model_dump_json().encode())
    return scenario, b"\0".join(seen), told


def test_the_watch_sees_what_is_sent(watched: tuple[Scenario, bytes, ProviderView]) -> None:
    """The canary test below can fail: a plain participant's pixels are found by the same search."""
    scenario, provider, _ = watched
    population = Population(scenario)
    (plain,) = population.plain
    image = population.participant(plain).train.images[0].reshape(-1)
    assert _among(_windows(image), np.sort(_windows(provider))).all()


def test_no_plain_training_pixels_reach_the_provider(
    watched: tuple[Scenario, bytes, ProviderView],
) -> None:
    scenario, provider, _ = watched
    population = Population(scenario)
    seen = np.sort(_windows(provider))
    for i in range(scenario.clients.count):
        if i in population.plain:
            continue
        for image in population.participant(i).train.images:
            for form in (image.reshape(-1), image.transpose(1, 2, 0).reshape(-1)):
                found = _among(_windows(form), seen) & _telling(form)
                assert not found.any(), f"participant {i}: {int(found.sum())} runs of plain pixels"


def test_no_key_or_seed_reaches_the_provider(watched: tuple[Scenario, bytes, ProviderView]) -> None:
    scenario, provider, _ = watched
    assert SEED.encode() not in provider
    for i in range(scenario.clients.count):
        ring = Population(scenario).participant(i).ring
        master: bytes = ring._master
        for form in (master, master.hex().encode(), ring.secret("randomness", i, "query ids")):
            assert form not in provider
        assert ring.fingerprint.encode() not in provider


def test_no_master_follows_from_what_the_provider_has(
    watched: tuple[Scenario, bytes, ProviderView],
) -> None:
    scenario, _, told = watched
    masters = {Population(scenario).participant(i).ring._master for i in range(5)}

    def guesses(value: Any) -> Iterator[int | str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield str(key)
                yield from guesses(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                yield from guesses(inner)
        elif isinstance(value, str) or (isinstance(value, int) and value >= 0):
            yield value
        elif value is not None:
            yield str(value)

    tried = {*guesses(told.model_dump()), *range(2000), "", "0", "fedenc", "photos"}
    assert len(tried) > 2000
    for guess in tried:
        for shared in (True, False):
            for i in range(5) if not shared else range(1):
                assert KeyRing.simulated(guess, i, shared=shared)._master not in masters
