"""Separate machines on this one, for Ray: each with its own network, address, host name, processes,
shared memory and ``/tmp/ray``, and without what is hidden from it.

They are Linux namespaces, which root may make. Everything that is made ends with this process, even
if it is killed: machines read from pipes that it holds, and namespaces end with their processes.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from command_line import COMMAND, ENVIRONMENT, ROOT, without_seed

PORT = 6379
PYTHON = sys.executable
RAY = str(Path(PYTHON).with_name("ray"))
NETWORK = "10.77.0"
HEAD = f"{NETWORK}.1:{PORT}"
NAMESPACES = ("--net", "--mount", "--uts", "--pid", "--ipc")
START_SECONDS = 300.0

_SWITCH = f"""
ip link add br0 type bridge && ip addr add {NETWORK}.254/24 dev br0 && ip link set br0 up &&
echo ready && read -r end
"""
_BOOT = """
set -e
name=$1 folder=$2 hosts=$3; shift 3
hostname "$name"
mount -t tmpfs tmpfs /dev/shm
mkdir -p /tmp/ray "$folder/ray" "$folder/nothing"
mount --bind "$folder/ray" /tmp/ray
mount --bind "$hosts" /etc/hosts
for path; do mount --bind "$folder/nothing" "$path"; done
echo ready
read -r end
"""


def unshipped() -> list[Path]:
    """Where this machine has fedenc's code: other machines get it from the run alone."""
    code = "import fedenc; print(fedenc.__path__[0])"
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONPATH"}
    found = subprocess.run(
        [PYTHON, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    installed = [Path(found.stdout.strip()).parent] if found.returncode == 0 else []
    packages = ("fedenc", "clients", "server", "simulations")
    return [root / name for root in {ROOT, *installed} for name in packages]


def refused() -> str | None:
    """Why such machines cannot be made here; None if they can."""
    try:
        done = subprocess.run(
            ["unshare", *NAMESPACES, "--fork", "sh", "-c", "ip link add br0 type bridge"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else None


@dataclass
class Machine:
    """One of them, while it is on."""

    name: str
    address: str
    folder: Path
    boot: "subprocess.Popen[str]"
    cable: str  # its end in the switch

    @property
    def pid(self) -> int:
        """Of its first process, in the namespace of the tests."""
        children = Path(f"/proc/{self.boot.pid}/task/{self.boot.pid}/children").read_text().split()
        return int(children[0])

    def start(self, *words: str, **popen: object) -> "subprocess.Popen[str]":
        """A command on it, in the folder of the tests, with a cache and a home of its own."""
        own = {name: str(self.folder / name) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        environment = {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONPATH"}
        shown, seed = without_seed(words)
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            ["nsenter", f"--target={self.pid}", *NAMESPACES, "env", f"--chdir={ROOT}", *shown],
            env=environment | own | seed | {"RAY_worker_niceness": "0"},
            text=True,
            **popen,
        )

    def fedenc(self, *words: str, timeout: float = 300) -> tuple[int, str, str]:
        """``fedenc`` on it; exit code, output and errors."""
        process = self.start(*COMMAND, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err

    def processes(self, title: str) -> set[int]:
        """Processes on it whose title contains a text."""
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    os.readlink(entry / "ns/pid") == mine
                    and title in (entry / "cmdline").read_text()
                ):
                    found.add(int(entry.name))
        return found

    def kill(self) -> None:
        """End all of its processes at once."""
        os.kill(self.pid, signal.SIGKILL)
        self.boot.wait()


@dataclass
class Lab:
    """A switch, and machines on it."""

    folder: Path
    switch: "subprocess.Popen[str]"
    machines: dict[str, Machine] = field(default_factory=dict)
    _booted: int = 0

    def boot(self, name: str, hidden: Sequence[Path] = ()) -> Machine:
        """Switch a machine on; one of this name that was killed comes back.

        Args:
            hidden: folders that it finds empty.
        """
        number = int(name[1:])
        address = f"{NETWORK}.{number}"
        self._booted += 1
        folder = self.folder / f"{name}.{self._booted}"
        folder.mkdir()
        hosts = self.folder / "hosts"
        names = "".join(f"{NETWORK}.{n} m{n}\n" for n in range(1, 10))
        hosts.write_text(f"127.0.0.1 localhost\n{names}")
        words = [name, str(folder), str(hosts), *map(str, hidden)]
        apart = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
        boot = _piped([*apart, "sh", "-c", _BOOT, "boot", *words])
        machine = Machine(name, address, folder, boot, f"cable{self._booted}")
        self._in_switch(
            "ip", "link", "add", machine.cable, "type", "veth", "peer", "name", "eth0", "netns",
            str(machine.pid),
        )  # fmt: skip
        self._in_switch("ip", "link", "set", machine.cable, "master", "br0", "up")
        inside = f"ip link set lo up && ip addr add {address}/24 dev eth0 && ip link set eth0 up"
        way_out = f"ip route add default via {NETWORK}.254"
        done = machine.start("sh", "-c", f"{inside} && {way_out}").wait()
        assert done == 0, f"{name} has no network"
        self.machines[name] = machine
        return machine

    def unplug(self, machine: Machine) -> None:
        """Pull its cable: nobody hears from it any more."""
        self._in_switch("ip", "link", "set", machine.cable, "down")

    def ray(self, machine: Machine, *options: str) -> None:
        """``ray start`` on it; the first machine is the head."""
        role = (
            ("--head", f"--port={PORT}", "--include-dashboard=false")
            if machine.name == "m1"
            else (f"--address={HEAD}",)
        )
        log = (machine.folder / "ray.txt").open("w")
        machine.start(
            RAY, "start", *role, f"--node-ip-address={machine.address}", *options,
            "--object-store-memory=200000000", "--block",
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in (machine.folder / "ray.txt").read_text():
            text = (machine.folder / "ray.txt").read_text()
            assert time.monotonic() < end, f"Ray did not start on {machine.name}: {text[-2000:]}"
            time.sleep(0.2)

    def _in_switch(self, *words: str) -> None:
        command = ["nsenter", f"--target={self.switch.pid}", "--net", *words]
        subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """A switch, until the end of the block."""
    switch = _piped(["unshare", "--net", "sh", "-c", _SWITCH])
    made = Lab(folder, switch)
    try:
        yield made
    finally:
        for machine in made.machines.values():
            if machine.boot.poll() is None:
                machine.kill()
        switch.kill()
        switch.wait()


def _piped(command: list[str]) -> "subprocess.Popen[str]":
    """A process that ends with the pipe from this one, once it has said that it is ready."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", command
    return process
