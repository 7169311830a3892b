"""Attack every method under every key policy, and measure its accuracy beside what it leaks.

``python -m benchmarks.attacks.run --root DATA --folder runs/attacks`` does what is not done yet: a
cell that was finished is read, and so is every attack in one that was interrupted. Several commands
with one folder, for some methods, policies or attacks each, add to one result.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.attacks import draw
from benchmarks.attacks.cells import METHODS, POLICIES, Cell, cells
from benchmarks.resumable import claim, public
from fedenc import attacks, models
from fedenc.attacks.base import Attack
from fedenc.files import write_atomically
from fedenc.provenance import commit, hardware, versions
from fedenc.scenario import Scenario
from simulations import attack, attacked, central, run
from simulations.experiment import prepare

Result = dict[str, Any]
CELL = "cell.json"  # a cell's accuracy, in its folder


def main() -> None:
    """Attack what the command line asks for; write figures, tables and pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root", type=Path, help="where the data set lies")
    parser.add_argument("--folder", type=Path, default=Path("runs/attacks"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--keys", nargs="+", choices=POLICIES, default=[*POLICIES])
    parser.add_argument("--attacks", default="all", help="quick, all, or names with commas")
    parser.add_argument("--owners", type=int, default=20)
    parser.add_argument("--images", type=int, default=250, help="that each owner uploads")
    parser.add_argument("--targets", type=int, default=100, help="uploads that are attacked")
    parser.add_argument("--public", type=int, default=2000, help="images of the attacker's own")
    parser.add_argument("--model", choices=models.names(), default="tiny")
    parser.add_argument("--epochs", type=int, default=6, help="of the model")
    parser.add_argument("--network-epochs", type=int, default=8, help="of the shared network")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    settings: dict[str, dict[str, Any]] = {
        "data": {"name": given.data, "root": None if given.root is None else str(given.root)},
        "clients": {"count": given.owners, "images": given.images},
        "model": {"name": given.model},
        "training": {"epochs": given.epochs, "learning_rate": 0.05},
        "inference": {"images": 50},
        "transformation": {
            "answers": "central",
            "fraction": 0.06,
            "widths": (16, 32, 64, 128),
            "features": "classifier",
            "classifier": given.model,
            "recipe": "ito-short",
            "epochs": given.network_epochs,
            "classifier_epochs": given.network_epochs,
        },
    }
    folder: Path = given.folder
    claim(folder, settings | {"targets": given.targets, "public": given.public, "seed": given.seed})
    wanted = attack.chosen(given.attacks)
    todo = list(cells(given.methods, given.keys))
    for number, cell in enumerate(todo, start=1):
        print(f"{number} of {len(todo)}: {cell.name}", flush=True)
        scenario = Scenario.model_validate({"seed": given.seed, **cell.scenario(settings)})
        measure(cell, scenario, wanted, folder / cell.name, given.targets, given.public)
    results = finished(folder)
    found: Result = {"cells": results, "settings": public(settings), "targets": given.targets}
    found |= {"public": given.public, "seed": given.seed}
    found |= {"hardware": hardware(), "versions": versions(), "commit": commit()}
    text = json.dumps(found, indent=1, allow_nan=False)
    write_atomically(folder / "attacks.json", text.encode() + b"\n")
    draw.everything(results, folder)
    print(draw.table(results))


def finished(folder: Path) -> list[Result]:
    """All cells in a folder, with the rows of all attacks that were run on them."""
    results = []
    for cell in cells(METHODS, POLICIES):
        own = folder / cell.name
        if not (own / CELL).exists():
            continue
        rows = {
            path.parent.name: json.loads(path.read_text())["row"]
            for path in own.glob("work/*/row.json")
        }
        order = [name for name in attacks.names() if name in rows]
        results.append(json.loads((own / CELL).read_text()) | {"rows": [rows[n] for n in order]})
    return results


def measure(
    cell: Cell,
    scenario: Scenario,
    wanted: Sequence[Attack],
    folder: Path,
    targets: int,
    public: int,
) -> None:
    """One cell: its accuracy, and what each attack finds; written into its folder."""
    experiment = prepare(scenario, cell.name)
    own = folder / "run"
    perform = central.in_folder(own)
    finished = run.record(experiment, own, perform, resume=own.exists())
    if scenario.awaits_bundle:  # it has been trained with the run
        experiment = experiment.with_bundle(own / run.THIRD_PARTY)
    sample = attacked.Sample(targets, public, seed=scenario.seed)
    target = attacked.of_experiment(experiment, own, sample, with_model=True)
    done = attack.attack(
        target, wanted, folder, title=cell.name, seed=scenario.seed, on_progress=_Printed()
    )
    facts = finished.result
    content: Result = {
        "method": cell.method,
        "keys": cell.keys,
        "accuracy": {facts["model"]["input"]: _shares(facts)}
        | {stage: _shares(found) for stage, found in facts.get("compared", {}).items()},
        "chance": facts["chance"],
        "recognised_plain": done.facts["recognised_plain"],
        "commit": commit(),
    }
    write_atomically(folder / CELL, json.dumps(content, allow_nan=False).encode())


def _shares(facts: Result) -> dict[str, float]:
    return {kind: found["overall"] for kind, found in facts["accuracy"].items()}


class _Printed:
    """Prints an attack's start and end."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, name: str, done: float, text: str) -> None:
        if done >= 1 or name != self._last:
            print(f"  {name}: {text}", flush=True)
        self._last = name


if __name__ == "__main__":
    main()
