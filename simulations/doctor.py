"""What ``fedenc doctor`` looks at: versions, devices, engines, data."""

import os

from rich.console import Console
from rich.table import Table

from fedenc import provenance
from fedenc.data import load
from fedenc.errors import FedencError
from simulations import engine

_EXPECTED = {"flwr": "1.41"}


def report(console: Console) -> bool:
    """Print what was found; True if a simulation can run here."""
    engine.quiet()
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    checks = [_versions, _hardware, _data, _ray]
    fine = True
    for check in checks:
        for name, good, text in check():
            fine &= good
            table.add_row(name, "[green]ok[/green]" if good else "[red]problem[/red]", text)
    console.print(table)
    return fine


Finding = tuple[str, bool, str]


def _versions() -> list[Finding]:
    findings = []
    for name, version in provenance.versions().items():
        wanted = _EXPECTED.get(name)
        good = wanted is None or version.startswith(wanted)
        findings.append((name, good, version if good else f"{version}, expected {wanted}.x"))
    return findings


def _hardware() -> list[Finding]:
    found = provenance.hardware()
    gpus = ", ".join(found["gpus"]) or "none (training runs on the CPU)"
    memory = f"{found['memory_bytes'] / 2**30:.0f} GiB"
    return [
        ("cpu", True, f"{found['cpu']}, {found['cores']} cores, {memory}"),
        ("gpu", True, gpus),
    ]


def _data() -> list[Finding]:
    findings = []
    for name in ("photos", "cifar10"):
        try:
            data = load(name)
            text = f"{len(data.train.labels):,} training and {len(data.test.labels):,} test images"
            findings.append((f"data: {name}", True, text))
        except FedencError as error:
            findings.append((f"data: {name}", name != "photos", f"not here: {error}"))
    return findings


def _ray() -> list[Finding]:
    address = os.environ.get("RAY_ADDRESS")
    try:
        with engine.ray_session(address):
            import ray

            found = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus, gpus = found.get("CPU", 0), found.get("GPU", 0)
        return [("ray cluster", True, f"{cpus:g} CPUs, {gpus:g} GPUs")]
    except FedencError as error:
        return [("ray cluster", False, str(error))]
