"""Train every row of the accuracy table and write one JSON and one table.

``python -m benchmarks.accuracy.run --root DATA --folder runs/accuracy`` does what is not done yet:
a row that was finished is read, one that was interrupted goes on from its last checkpoint.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.accuracy.rows import DOMAINS, FRONTS, PROTECTIONS, Row, rows
from benchmarks.resumable import claim, mean, public
from fedenc import models
from fedenc.files import write_atomically
from fedenc.provenance import commit, hardware, versions
from fedenc.training.recipes import RECIPES
from simulations import central, run
from simulations.experiment import OnEvent, prepare

Result = dict[str, Any]


def main() -> None:
    """Train what the command line asks for; print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root", type=Path, help="where the data set lies")
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--model", choices=models.names(), default="fast")
    parser.add_argument("--recipe", choices=tuple(RECIPES), default="fast")
    parser.add_argument("--scale", type=float, default=1.0, help="of the recipe's epochs")
    parser.add_argument("--images", type=int, help="train on so many; default: all")
    parser.add_argument("--augmentation", default="crop-flip", help="where a row augments")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--protection", nargs="+", choices=PROTECTIONS, default=[*PROTECTIONS])
    parser.add_argument("--front", nargs="+", choices=FRONTS, default=FRONTS)
    parser.add_argument("--domain", nargs="+", choices=DOMAINS, default=DOMAINS)
    parser.add_argument("--threads", type=int, help="default: all cores")
    given = parser.parse_args()
    root = None if given.root is None else str(given.root)
    settings: Result = {
        "data": {"name": given.data, "root": root},
        "clients": {"images": given.images},
        "model": {"name": given.model},
        "training": {"recipe": given.recipe, "scale": given.scale},
        "server": {"threads": given.threads},
    }
    folder: Path = given.folder
    claim(folder, settings | {"augmentation": given.augmentation})
    wanted = [
        row
        for row in rows(given.seeds)
        if row.protection in given.protection
        and row.front in given.front
        and row.domain in given.domain
    ]
    results = []
    for number, row in enumerate(wanted, start=1):
        print(f"{number} of {len(wanted)}: {row.name}", flush=True)
        results.append(measure(row, settings, given.augmentation, folder / row.name))
    found: Result = {"rows": results, "settings": public(settings), "hardware": hardware()}
    found |= {"versions": versions(), "commit": commit()}
    write_atomically(folder / "accuracy.json", json.dumps(found, indent=2).encode() + b"\n")
    text = table(results)
    write_atomically(folder / "accuracy.md", text.encode() + b"\n")
    print(text)


def measure(row: Row, settings: Mapping[str, Any], augmentation: str, folder: Path) -> Result:
    """One row: trained now, or read where it is finished."""
    experiment = prepare(row.scenario(settings, augmentation), row.name)
    on_event: OnEvent = lambda event: print(f"  {event.text}", flush=True)  # noqa: E731
    perform = central.in_folder(folder)
    result = run.record(experiment, folder, perform, resume=folder.exists(), on_event=on_event)
    facts = result.result
    shares = {kind: found["overall"] for kind, found in facts["accuracy"].items()}
    protected = shares.get("encrypted", shares.get("same-key", shares["plain"]))
    return asdict(row) | {
        "encrypted": protected,
        "plain": shares["plain"],
        "agreement": facts["agreement"]["plain_vs_encrypted"],
        "final_loss": facts["training"]["final_loss"],
        "seconds": facts["training"]["seconds"],
        "sha256": facts["model"]["sha256"],
    }


def table(results: Sequence[Result]) -> str:
    """Means over seeds as Markdown, and their deviation where there is more than one."""
    groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result["protection"], result["front"], result["domain"]].append(result)
    lines = [
        "| protection | input | augmented by | encrypted % | plain % | agree % | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for (protection, front, domain), group in groups.items():
        cells = [
            mean([100 * result[key] for result in group if result[key] is not None], 1)
            for key in ("encrypted", "plain", "agreement")
        ]
        lines.append(f"| {protection} | {front} | {domain} | {' | '.join(cells)} | {len(group)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
