"""Train every row of the accuracy table and write one JSON and one table.

``python -m benchmarks.accuracy.run --root DATA --folder runs/accuracy`` does what is not done yet:
a row that was finished is read, one that was interrupted goes on from its last epoch.
"""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.rows import DOMAINS, FRONTS, PROTECTIONS, Row, queries, rows, training_set
from benchmarks.resumable import claim, mean
from fedenc import data as datasets
from fedenc import models
from fedenc.data.dataset import Dataset
from fedenc.files import write_atomically
from fedenc.provenance import commit, hardware, versions
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit
from fedenc.training.model_files import weights_sha256
from fedenc.training.predict import predict
from fedenc.training.recipes import RECIPES, recipe
from fedenc.training.training_set import TrainingSet

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
    parser.add_argument("--ema", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--protection", nargs="+", choices=PROTECTIONS, default=PROTECTIONS)
    parser.add_argument("--front", nargs="+", choices=FRONTS, default=FRONTS)
    parser.add_argument("--domain", nargs="+", choices=DOMAINS, default=DOMAINS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = datasets.load(given.data, root=given.root)
    config = recipe(given.recipe, scale=given.scale, ema=given.ema)
    wanted = [
        row
        for row in rows(given.seeds)
        if row.protection in given.protection
        and row.front in given.front
        and row.domain in given.domain
    ]
    settings: Result = {
        "data": given.data,
        "images": given.images,
        "model": given.model,
        "augmentation": given.augmentation,
        "threads": given.threads,
        "device": given.device,
        "training": config.as_dict(),
    }
    folder: Path = given.folder
    claim(folder, settings)
    results = []
    for number, row in enumerate(wanted, start=1):
        print(f"{number} of {len(wanted)}: {row.name}", flush=True)
        results.append(_row(row, data, config, settings, folder))
    found: Result = {"rows": results, "settings": settings, "hardware": hardware()}
    found |= {"versions": versions(), "commit": commit()}
    write_atomically(folder / "accuracy.json", json.dumps(found, indent=2).encode() + b"\n")
    text = table(results)
    write_atomically(folder / "accuracy.md", text.encode() + b"\n")
    print(text)


def _row(row: Row, data: Dataset, config: TrainingConfig, settings: Result, folder: Path) -> Result:
    done, part = folder / f"{row.name}.json", folder / f"{row.name}.state"
    if done.exists():
        result: Result = json.loads(done.read_bytes())
        return result
    images, labels, views = training_set(
        row, data.train, settings["images"], settings["augmentation"]
    )
    by_server = settings["augmentation"] if row.domain == "encrypted" else "none"
    model = models.build(
        settings["model"],
        channels=images.shape[1],
        classes=len(data.classes),
        size=(images.shape[2], images.shape[3]),
        input=row.input,
        adapter=row.adapter,
        seed=row.seed,
    )
    run = fit(
        model,
        TrainingSet(images, labels, views),
        replace(config, augmentation=by_server),
        seed=row.seed,
        device=torch.device(settings["device"]),
        state=part.read_bytes() if part.exists() else None,
    )
    for progress in run:
        write_atomically(part, run.checkpoint())
        print(f"  {progress}", flush=True)
    truth = torch.from_numpy(np.array(data.test.labels))
    answers = {
        kind: predict(model, asked, device=run.device).argmax(dim=1)
        for kind, asked in queries(row, data).items()
    }
    same = (answers["encrypted"] == answers["plain"]).double().mean().item()
    result = asdict(row) | {
        kind: (answer == truth).double().mean().item() for kind, answer in answers.items()
    }
    result |= {"agreement": same, "final_loss": progress.loss, "training": progress.accuracy}
    result |= {"seconds": progress.seconds, "sha256": weights_sha256(model)}
    write_atomically(done, json.dumps(result, indent=2).encode() + b"\n")
    part.unlink(missing_ok=True)
    return result


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
            mean([100 * result[key] for result in group], 1)
            for key in ("encrypted", "plain", "agreement")
        ]
        lines.append(f"| {protection} | {front} | {domain} | {' | '.join(cells)} | {len(group)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
