"""A Ray cluster of separate machines: a head with the driver, one with a CPU for participants, and
one with the trainer's resource. Only the head has the code and the data."""

import json
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import COMMAND, SMALL
from deaths import lose
from machines import HEAD, Lab, Machine, lab, refused, unshipped
from PIL import Image

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

CLIENT, TRAINER = "ray::ClientAppActor", "ray::TrainerActor"
JOINED = f"engine.address='{HEAD}'"
PATIENCE = 180.0  # seconds: a busy machine takes its time


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reason := refused():
        pytest.skip(f"needs root and Linux namespaces: {reason}")
    folder = tmp_path_factory.mktemp("lab")
    write_images(folder / "data")
    hidden = [*unshipped(), folder / "data"]
    with lab(folder) as made:
        made.ray(made.boot("m1"), "--num-cpus=1")
        made.ray(made.boot("m2", hidden), "--num-cpus=1")
        made.ray(made.boot("m3", hidden), "--num-cpus=0", '--resources={"trainer":1}')
        yield made


def write_images(folder: Path) -> None:
    """A data set of two classes, of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 80, 16, 16, 3), np.uint8)
    for name, images in zip("ab", pixels, strict=True):
        for number, image in enumerate(images):
            path = folder / ("train" if number < 64 else "test") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


def own_data(cluster: Lab) -> list[str]:
    """The data set that only the head has."""
    root = f"data.root='{cluster.folder / 'data'}'"
    return ["data.name=folder", "data.size=16", root]


def words(folder: Path, *sets: str) -> list[str]:
    chosen = [part for value in (*SMALL, "server.threads=1", *sets) for part in ("--set", value)]
    return ["simulate", "photos", "--out", str(folder), *chosen]


def where(cluster: Lab, title: str) -> set[str]:
    """The machines on which there is such a process."""
    return {name for name, machine in cluster.machines.items() if machine.processes(title)}


def watched(cluster: Lab, folder: Path, *sets: str) -> tuple[set[str], set[str]]:
    """Run to the end; where participants and where trainers were seen."""
    clients, trainers = set[str](), set[str]()
    with (folder.with_suffix(".txt")).open("w+") as output:
        driver = cluster.machines["m1"].start(
            *COMMAND, *words(folder, JOINED, *sets), stdout=output, stderr=output
        )
        while driver.poll() is None:
            clients |= where(cluster, CLIENT)
            trainers |= where(cluster, TRAINER)
            time.sleep(0.1)
        output.seek(0)
        assert driver.returncode == 0, output.read()
    return clients, trainers


def weights(folder: Path) -> str:
    return str(json.loads((folder / "result.json").read_text())["model"]["sha256"])


def nothing_runs(cluster: Lab) -> None:
    """Wait until no process of the run is left anywhere."""
    end = time.monotonic() + PATIENCE
    while left := where(cluster, CLIENT) | where(cluster, TRAINER):
        assert time.monotonic() < end, f"processes of the run stay on {left}"
        time.sleep(0.2)


def test_participants_and_trainer_have_machines_of_their_own_and_the_weights_are_those_of_one(
    cluster: Lab, tmp_path: Path
) -> None:
    clients, trainers = watched(cluster, tmp_path / "run")
    assert clients == {"m1", "m2"}
    assert trainers == {"m3"}
    nothing_runs(cluster)
    code, _, err = cluster.machines["m1"].fedenc(*words(tmp_path / "local"))
    assert code == 0, err
    assert weights(tmp_path / "run") == weights(tmp_path / "local")
    found = json.loads((tmp_path / "run" / "result.json").read_text())["cluster"]
    assert [(m["name"], m["cpus"], m["trainer"]) for m in found] == [
        ("m1", 1, False),
        ("m2", 1, False),
        ("m3", 0, True),
    ]


def test_data_that_a_machine_lacks_is_said_before_anybody_uploads(
    cluster: Lab, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    code, _, err = cluster.machines["m1"].fedenc(*words(folder, JOINED, *own_data(cluster)))
    assert code == 9
    assert len(err.strip().splitlines()) == 1
    assert "machine 10.77.0.2 (m2): participants cannot run there:" in err
    assert "10.77.0.3" not in err, "the trainer needs no data"
    assert "upload" not in (folder / "log.txt").read_text()


def test_participants_run_on_as_many_machines_as_wanted(cluster: Lab, tmp_path: Path) -> None:
    """And so need data on no others."""
    sets = own_data(cluster)
    clients, _ = watched(cluster, tmp_path / "run", "engine.machines=1", *sets)
    assert clients == {"m1"}
    code, _, err = cluster.machines["m1"].fedenc(
        *words(tmp_path / "more", JOINED, "engine.machines=3", *sets)
    )
    assert code == 9
    assert "engine.machines = 3, but 2 machines of the Ray cluster have CPUs" in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_leaves_stops_its_processes(
    cluster: Lab, tmp_path: Path, how: signal.Signals
) -> None:
    """Although these are busy: all participants sleep."""
    head, asleep = cluster.machines["m1"], ("faults.silent=6", "server.deadline=900")
    driver = head.start(
        *COMMAND, *words(tmp_path / "run", JOINED, *asleep),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + PATIENCE
    while not (where(cluster, CLIENT) == {"m1", "m2"} and where(cluster, TRAINER) == {"m3"}):
        assert driver.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(min(head.processes("simulations.cli")), how)
    driver.wait(PATIENCE)
    nothing_runs(cluster)
    assert driver.returncode == (130 if how == signal.SIGINT else -9)


@pytest.mark.parametrize("cable", [False, True], ids=["killed", "unplugged"])
def test_a_machine_that_is_lost_takes_no_participant_along(
    cluster: Lab, tmp_path: Path, cable: bool
) -> None:
    lost = lose(cluster, tmp_path / "run", "m2", cable=cable)
    assert lost.before < 400, "it was lost while participants uploaded"
    assert lost.lost_nobody, lost
    back(cluster, "m2")


def test_what_must_be_installed_is_named(cluster: Lab, tmp_path: Path) -> None:
    packages = Path(sysconfig.get_path("purelib"))
    machine = cluster.boot("m4", [*unshipped(), packages / "cryptography"])
    cluster.ray(machine, "--num-cpus=1")
    code, _, err = cluster.machines["m1"].fedenc(*words(tmp_path / "run", JOINED))
    machine.kill()
    assert code == 9
    assert len(err.strip().splitlines()) == 1
    assert "machine 10.77.0.4 (m4): cannot import what fedenc needs" in err
    assert "cryptography" in err


def back(cluster: Lab, name: str) -> Machine:
    """Switch a machine on again."""
    machine = cluster.boot(name, [*unshipped(), cluster.folder / "data"])
    cluster.ray(machine, "--num-cpus=1")
    return machine
