"""An existing Ray cluster of two nodes, on one of which the trainer's resource is."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from command_line import SMALL, simulate_here

pytestmark = pytest.mark.e2e
POLL_SECONDS = 0.05


@pytest.fixture
def held() -> Iterator[set[str]]:
    """The resources of which a run took all there are, at some moment."""
    taken: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(POLL_SECONDS):
            # There is no Ray before the run joins one, and none after it.
            with contextlib.suppress(Exception):
                taken.update(ray.cluster_resources().keys() - ray.available_resources().keys())

    watcher = threading.Thread(target=look)
    watcher.start()
    yield taken
    done.set()
    watcher.join()


@pytest.fixture
def unshared(tmp_path: Path) -> Iterator[Path]:
    """A folder that other processes do not find under its name, like one of another machine."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to hide a folder from other processes")
    number = os.open(tmp_path, os.O_RDONLY)
    yield Path(f"/proc/self/fd/{number}")
    os.close(number)


def test_the_trainer_goes_where_its_resource_is_and_needs_no_shared_folder(
    cluster: str, joined: str, held: set[str], unshared: Path
) -> None:
    done = simulate_here(unshared / "run", *SMALL, joined)
    assert "trainer" in held
    assert done.result["clients"]["uploaded"] == 6
    assert done.result["accuracy"]["encrypted"]["queries"] == 6 * 8
    assert done.result["scenario"]["engine"]["address"] == cluster
    ray.init(cluster, log_to_driver=False, logging_level=logging.ERROR)
    try:
        assert ray.cluster_resources()["CPU"] == 2, "the cluster goes on without the run"
    finally:
        ray.shutdown()
