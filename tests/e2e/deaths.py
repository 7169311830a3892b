"""A machine of a cluster is lost while participants upload, again and again.

``python tests/e2e/deaths.py 20`` kills it so often, and prints what became of the participants.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from command_line import COMMAND
from machines import HEAD, Lab, lab, refused, unshipped

MANY = [
    *("data.name=synthetic", "data.count=800", "clients.count=400", "clients.images=2"),
    *("inference.images=1", "inference.total=20", "training.epochs=1", "model.compare=[]"),
    *("model.name=tiny", "encryption.seed='of a test'", "server.threads=1"),
]
SECONDS = 800.0  # a run takes at most


@dataclass(frozen=True)
class Try:
    """What became of one run that lost a machine."""

    code: int
    uploaded: int
    failed: int
    before: int  # uploads that had come when the machine was lost
    seconds: float

    @property
    def lost_nobody(self) -> bool:
        return self.code == 0 and self.uploaded == 400 and not self.failed


def lose(made: Lab, folder: Path, name: str, *, cable: bool) -> Try:
    """One run, during which a machine dies or, with ``cable``, is heard of no more."""
    start = time.monotonic()
    words = [part for value in MANY for part in ("--set", value)]
    words += ["--set", f"engine.address='{HEAD}'", "--out", str(folder)]
    output = folder.with_suffix(".txt").open("w")
    driver = made.machines["m1"].start(*COMMAND, "simulate", *words, stdout=output, stderr=output)
    before = 0
    while not before:
        assert driver.poll() is None, folder.with_suffix(".txt").read_text()
        time.sleep(0.05)
        before = _uploads(folder)
    if cable:
        made.unplug(made.machines[name])
    else:
        made.machines[name].kill()
    code = driver.wait(SECONDS)
    seconds = time.monotonic() - start
    if cable:
        made.machines[name].kill()
    if code:
        return Try(code, 0, 0, before, seconds)
    clients = json.loads((folder / "result.json").read_text())["clients"]
    return Try(code, clients["uploaded"], len(clients["failed"]), before, seconds)


def _uploads(folder: Path) -> int:
    """Uploads so far; the log has a line for every tenth."""
    try:
        lines = (folder / "log.txt").read_text().splitlines()
    except OSError:
        return 0
    return max(
        (int(line.split()[3].split("/")[0]) for line in lines if " upload " in line), default=0
    )


def main(tries: int, cable: bool) -> None:
    """Print a line for every try."""
    assert (reason := refused()) is None, reason
    with tempfile.TemporaryDirectory(prefix="lab") as folder, lab(Path(folder)) as made:
        made.ray(made.boot("m1"), "--num-cpus=1")
        made.ray(made.boot("m3", unshipped()), "--num-cpus=0", '--resources={"trainer":1}')
        for number in range(tries):
            made.ray(made.boot("m2", unshipped()), "--num-cpus=2")
            done = lose(made, Path(folder, f"run{number}"), "m2", cable=cable)
            print(number, done, "" if done.lost_nobody else "LOST", flush=True)
            if done.code:
                print(Path(folder, f"run{number}.txt").read_text()[-600:], flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), "cable" in sys.argv[2:])
