"""What an interrupted command says, and whose processes it ends."""

import signal
import subprocess
import sys

import pytest

from simulations import interrupts


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["simulate", "photos", "--out", "x"], "interrupted; continue with --resume"),
        (["--debug", "simulate"], "interrupted; continue with --resume"),
        (["study", "keys"], "interrupted; continue with --resume"),
        (["reproduce", "skk2019"], "interrupted; continue with --resume"),
        (["attack", "runs/x"], "interrupted; repeat the command to continue"),
        (["transformation", "train", "b"], "interrupted; repeat the command to continue"),
        (["transformation", "protect", "b"], "interrupted"),
        (["encrypt", "a", "b"], "interrupted; repeat the command to continue"),
        (["decrypt", "a", "b"], "interrupted; repeat the command to continue"),
        (["doctor"], "interrupted"),
        ([], "interrupted"),
    ],
)
def test_every_command_has_its_own_hint(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    interrupts.tell(arguments)
    assert capsys.readouterr().err == f"fedenc: {line}\n"


_COMMAND = """
import os, signal, subprocess, sys
from simulations import cli, interrupts
from simulations.cli import app

@app.command("wait")
def wait() -> None:
    # a child that has one of its own, neither of which would end with this process
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    while len(interrupts._below(os.getpid())) < 2:
        pass
    for number, start in interrupts._below(os.getpid()):
        print(number, flush=True)
    print("ready", flush=True)
    signal.pause()

sys.argv[1:] = ["wait"]
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_and_all_below_it(number: int) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", _COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert command.stdout is not None
    below = list[int]()
    while (line := command.stdout.readline()) != "ready\n":
        below.append(int(line))
    command.send_signal(number)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 130
    assert errors == "fedenc: interrupted\n"
    running = {process for process, _ in interrupts._running()}
    assert len(below) == 2
    assert not running & set(below)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    code = "import signal; from simulations import interrupts; interrupts.install(); "
    code += "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    words = ["sh", "-c", 'trap "" HUP; exec "$0" "$@"', sys.executable, "-c", code]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "True\n"
