"""Commands that are told to stop: one line, an exit code, and no process left."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import COMMAND, ENVIRONMENT, FEW, ROOT, words
from PIL import Image

from fedenc.ciphers.files import manifest
from fedenc.keys import KeyRing

MARK = "FEDENC_TEST_MARK"  # every process inherits it from the command
LEFT_SECONDS = 20.0  # that Ray's workers may take to notice its end
pytestmark = pytest.mark.e2e


class Command:
    """A command under way, in a process of its own."""

    def __init__(self, *arguments: str, **kwargs: object) -> None:
        self.mark = f"{MARK}={os.getpid()}-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=ENVIRONMENT | dict([self.mark.split("=")]),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, reached: Callable[[], bool]) -> None:
        """Until something has happened; the command must not end before."""
        while not reached():
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.05)

    def stop(self, number: int) -> tuple[int, str]:
        """Send a signal; exit code and what was printed as errors."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=100)
        return self.process.returncode, errors

    def left(self) -> list[str]:
        """What is still running, after Ray's workers had time to notice."""
        end = time.monotonic() + LEFT_SECONDS
        while (found := self.running()) and time.monotonic() < end:
            time.sleep(0.2)
        return found

    def running(self) -> list[str]:
        """Command lines of the processes that there are."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found


def said(folder: Path, word: str) -> Callable[[], bool]:
    """Whether a run's log says something."""
    log = folder / "log.txt"
    return lambda: log.exists() and word in log.read_text()


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (signal.SIGHUP, "start"),
        (signal.SIGINT, "upload"),
        (signal.SIGTERM, "training"),
    ],
)
def test_a_simulation_ends_in_one_line(tmp_path: Path, number: int, phase: str) -> None:
    folder = tmp_path / "run"
    command = Command(*words(folder, *FEW, "training.epochs=500", "model.compare=[]"))
    if phase == "start":
        command.wait_for((folder / "scenario.json").exists)
    else:
        command.wait_for(said(folder, f" {phase} "))
        assert len(command.running()) > 3, "Ray's processes are counted"
    code, errors = command.stop(number)
    assert errors == "fedenc: interrupted; continue with --resume\n"
    assert code == 130
    assert command.left() == []


def test_encryption_ends_in_one_line_and_goes_on(tmp_path: Path) -> None:
    photos, sent, key = tmp_path / "photos", tmp_path / "sent", tmp_path / "key"
    photos.mkdir()
    pixels = np.zeros((600, 600, 3), np.uint8)
    for number in range(120):
        Image.fromarray(pixels).save(photos / f"{number}.png")
    KeyRing.generate().save(key)
    arguments = ["encrypt", str(photos), str(sent), "--keyfile", str(key), "--processes", "2"]
    command = Command(*arguments)
    record = sent / manifest.NAME
    command.wait_for(lambda: record.exists() and record.read_bytes().count(b"\n") > 2)
    refused = subprocess.run(
        [*COMMAND, *arguments], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode == 9
    assert refused.stderr.startswith("fedenc: another process is encrypting into")
    code, errors = command.stop(signal.SIGTERM)
    assert (code, errors) == (130, "fedenc: interrupted; repeat the command to continue\n")
    assert command.left() == []
