"""Train every row of Ito et al.'s tables and print paper, ours and the difference.

``python -m benchmarks.transformation.run --root DATA --folder runs/transformation`` does what is
not done yet: a row that was finished is read, one that was interrupted goes on.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.resumable import claim, mean
from benchmarks.transformation.rows import KEYED, PAPER_ALPHAS, Row, protections, rows
from fedenc import ciphers, models
from fedenc import data as datasets
from fedenc.errors import TrainingError
from fedenc.files import write_atomically
from fedenc.images.metrics import psnr, ssim
from fedenc.keys import KeyRing
from fedenc.models.network import Network
from fedenc.provenance import commit, hardware, versions
from fedenc.training import validation
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Progress, fit
from fedenc.training.model_files import load_model, save_model
from fedenc.training.predict import predict
from fedenc.training.recipes import recipe
from fedenc.training.training_set import TrainingSet
from fedenc.transformation.bundle import load_classifier, load_transformation
from fedenc.transformation.config import FEATURES, TransformationConfig
from fedenc.transformation.cost import cost
from fedenc.transformation.measure import measure
from fedenc.transformation.pictures import compare
from fedenc.transformation.third_party import train

Result = dict[str, Any]
_SHOWN = 10  # images in the picture, as many as in the paper's fig. 7


class Bench:
    """One table: its data, settings and folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.folder: Path = given.folder
        self.device = torch.device(given.device)
        data = datasets.load(given.data, root=given.root)
        self.data, self.classes = given.data, data.classes
        self.test, self.truth = _tensors(data.test)
        self.images, self.labels = _tensors(data.train)
        if given.images is not None and given.images < len(self.labels):
            fraction = given.images / len(self.labels)
            _, chosen = validation.split(self.labels, fraction, seed=0)
            assert chosen is not None
            self.images, self.labels = self.images[chosen], self.labels[chosen]
        held_out = 0.05 if given.data == "cifar100" else 0.1
        common = {"augmentation": "crop-flip", "validation": held_out}
        self.psi_config = recipe(given.recipe, scale=given.scale, **common)
        self.h_config = recipe(given.recipe, scale=given.network_scale or given.scale, **common)
        self.options = {
            "widths": tuple(given.widths),
            "features": given.features,
            "feature_weights": given.feature_weights,
            "foreign": False,  # here it is the classifier of another seed
        }
        self.settings: Result = {
            "data": self.data,
            "images": len(self.labels),
            "threads": given.threads,
            "device": str(self.device),
            "network": TransformationConfig(**self.options).as_dict(),
            "classifier_training": self.psi_config.as_dict(),
            "network_training": self.h_config.as_dict(),
        }
        claim(self.folder, self.settings)

    def row(self, row: Row) -> Result:
        """One row, trained now or before."""
        done = self.folder / f"{row.name}.json"
        if done.exists():
            result: Result = json.loads(done.read_bytes())
            return result
        start = time.monotonic()
        if row.protection == "plain":
            found = self._plain(row)
        elif row.protection in KEYED:
            found = self._keyed(row)
        else:
            found = self._network(row)
        result = asdict(row) | {"paper": row.paper(self.data)} | found
        result["seconds_this_time"] = time.monotonic() - start
        write_atomically(done, json.dumps(result, indent=2).encode() + b"\n")
        (self.folder / f"{row.name}.state").unlink(missing_ok=True)
        return result

    def picture(self, wanted: Sequence[Row]) -> None:
        """The paper's fig. 7: plain images, then a row for each network of the first seed."""
        shown = self.test[:_SHOWN]
        networks = [row for row in wanted if self._bundle(row).exists() and row.seed == 0]
        for classifier in {row.classifier for row in networks}:
            parts = [
                (row.protection, load_transformation(self._bundle(row)).protect(shown))
                for row in networks
                if row.classifier == classifier
            ]
            compare(shown, parts).save(self.folder / f"pictures-{classifier}.png")

    def _bundle(self, row: Row) -> Path:
        return self.folder / f"{row.name}.bundle"

    def _plain(self, row: Row) -> Result:
        model = self._classifier(row.classifier, row.seed)
        return {"accuracy": self._accuracy(model, self.test)}

    def _network(self, row: Row) -> Result:
        """A transformation network; foreign queries go to the classifier of the next seed."""
        psi = self._classifier(row.classifier, row.seed)
        config = TransformationConfig(
            method="gan" if row.alpha is None else "unet",
            alpha=row.alpha or 0.0,
            classifier=row.classifier,
            **self.options,
        )
        train(
            TrainingSet(self.images, self.labels),
            self.classes,
            config=config,
            training=self.h_config,
            classifier_training=self.psi_config,
            seed=row.seed,
            device=self.device,
            folder=self._bundle(row),
            data={"name": self.data, "images": len(self.labels)},
            psi=psi,
            on_progress=_say,
        )
        network = load_transformation(self._bundle(row))
        found = measure(
            network,
            load_classifier(self._bundle(row))[0],
            self.test,
            self.truth,
            foreign=self._classifier(row.classifier, row.seed + 1),
            device=self.device,
        )
        return {
            "accuracy": found["protected_accuracy"],
            "measured": found,
            "cost": cost(network),
        }

    def _keyed(self, row: Row) -> Result:
        """A classifier trained and queried under one shared key: Tanaka's method with its network
        in front, or NP alone."""
        if row.protection == "le":
            cipher, adapter = ciphers.make("le"), "le-adaptnet"
        else:
            cipher, adapter = ciphers.make("pixel", color_shuffle=False), None
        protected = self._encrypt(cipher, self.images, row.seed)
        asked = self._encrypt(cipher, self.test, row.seed)
        model = models.build(
            row.classifier,
            channels=protected.shape[1],
            classes=len(self.classes),
            size=(protected.shape[2], protected.shape[3]),
            adapter=adapter,
            seed=row.seed,
        )
        # ImageNet's statistics and cropping are for plain images
        config = replace(self.psi_config, normalisation="pool", augmentation="none")
        self._train(model, protected, config, row.seed, self.folder / f"{row.name}.state")
        return {
            "accuracy": self._accuracy(model, asked),
            "ssim_uniform7": ssim(self.test, asked, "uniform7").mean().item(),
            "ssim_gaussian11": ssim(self.test, asked, "gaussian11").mean().item(),
            "psnr": psnr(self.test, asked).mean().item(),
            "cost": {"ms_per_image": self._cipher_milliseconds(cipher)},
        }

    def _encrypt(self, cipher: ciphers.Cipher, images: Tensor, seed: int) -> Tensor:
        ring = KeyRing.simulated(f"transformation-{seed}", 0)
        stream = ring.keystream(
            method=cipher.name,
            policy="same",
            purpose="train",
            nonce=bytes(16),
            ids=np.arange(len(images)),
        )
        return cipher.encrypt(images, stream)

    def _cipher_milliseconds(self, cipher: ciphers.Cipher) -> float:
        timings = []
        for _ in range(6):
            start = time.perf_counter()
            self._encrypt(cipher, self.test[:64], 0)
            timings.append((time.perf_counter() - start) * 1e3 / 64)
        return median(timings[1:])

    def _classifier(self, name: str, seed: int) -> Network:
        """A classifier trained on plain images, now or before."""
        folder = self.folder / f"{name}_{seed}.model"
        if (folder / "config.json").exists():
            return load_model(folder)[0]
        height, width = self.images.shape[2:]
        model = models.build(
            name, channels=3, classes=len(self.classes), size=(height, width), seed=seed
        )
        state = folder.with_suffix(".state")
        self._train(model, self.images, self.psi_config, seed, state)
        save_model(folder, model, details={"classes": list(self.classes)})
        state.unlink(missing_ok=True)
        return model.eval()

    def _train(
        self, model: Network, images: Tensor, config: TrainingConfig, seed: int, state: Path
    ) -> None:
        run = fit(
            model,
            TrainingSet(images, self.labels),
            config,
            seed=seed,
            device=self.device,
            state=state.read_bytes() if state.exists() else None,
        )
        for progress in run:
            write_atomically(state, run.checkpoint())
            _say(state.stem, progress)

    def _accuracy(self, model: Network, images: Tensor) -> float:
        guesses = predict(model, images, device=self.device).argmax(dim=1)
        return (guesses == self.truth).double().mean().item()


def _tensors(split: datasets.Split) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.array(split.images)), torch.from_numpy(np.array(split.labels))


def _say(phase: str, p: Progress) -> None:
    print(f"  {phase}, {p}", flush=True)


def table(results: Sequence[Result]) -> str:
    """Means over seeds as Markdown, with their deviation where there is more than one."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result["classifier"], result["protection"]].append(result)
    lines = [
        "| classifier | protection | paper % | ours % | difference | plain queries % | foreign % "
        "| rounding costs | SSIM 7×7 | SSIM 11×11 | PSNR dB | collapsed | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for (classifier, protection), group in groups.items():
        ours = [100 * result["accuracy"] for result in group]
        paper = group[0]["paper"]
        networks = [result["measured"] for result in group if "measured" in result]
        seen = networks or [result for result in group if "psnr" in result]
        collapsed = sum(m["collapse"]["collapsed"] for m in networks)
        cells = [
            "" if paper is None else f"{paper:.2f}",
            mean(ours, 2),
            "" if paper is None else f"{fmean(ours) - paper:+.2f}",
            mean([100 * m["plain_accuracy"] for m in networks], 2),
            mean([100 * m["foreign_accuracy"] for m in networks], 2),
            mean([100 * (m["unrounded_accuracy"] - m["protected_accuracy"]) for m in networks], 2),
            mean([m["ssim_uniform7"] for m in seen], 3),
            mean([m["ssim_gaussian11"] for m in seen], 3),
            mean([m["psnr"] for m in seen], 1),
            f"{collapsed} of {len(group)}" if networks else "",
        ]
        lines.append(f"| {classifier} | {protection} | {' | '.join(cells)} | {len(group)} |")
    return "\n".join(lines)


def costs(results: Sequence[Result]) -> str:
    """What protecting one image costs a participant, as Markdown; medians over rows."""
    found: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if "cost" in result:
            kind = "transformation network" if "alpha" in result["protection"] else None
            found[kind or result["protection"]].append(result["cost"])
    lines = ["| protection | ms/image | MFLOP/image | MB |", "|---|---:|---:|---:|"]
    for kind, group in found.items():
        mflop, size = group[0].get("mflop_per_image"), group[0].get("bytes")
        lines.append(
            f"| {kind} | {median(c['ms_per_image'] for c in group):.3f} | "
            f"{'' if mflop is None else f'{mflop:,.1f}'} | "
            f"{'' if size is None else f'{size / 1e6:,.2f}'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train what the command line asks for; print and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root", type=Path, help="where the data set lies")
    parser.add_argument("--folder", type=Path, default=Path("runs/transformation"))
    parser.add_argument("--classifiers", nargs="+", choices=models.names(), default=["resnet20"])
    parser.add_argument("--alphas", nargs="*", type=float, default=list(PAPER_ALPHAS))
    parser.add_argument("--others", nargs="*", choices=(*KEYED, "gan"), default=[*KEYED, "gan"])
    parser.add_argument("--images", type=int, help="train on so many; default: all")
    parser.add_argument("--recipe", choices=("ito", "ito-short"), default="ito")
    parser.add_argument("--scale", type=float, default=1.0, help="of the recipe's epochs")
    parser.add_argument("--network-scale", type=float, help="the same, for networks; default: same")
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 128, 256, 512, 1024])
    parser.add_argument("--features", choices=FEATURES, default=FEATURES[0])
    parser.add_argument("--feature-weights", help="file of VGG16's ImageNet weights")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    bench = Bench(given)
    wanted = list(rows(given.classifiers, protections(given.alphas, given.others), given.seeds))
    results = []
    for number, row in enumerate(wanted, start=1):
        print(f"{number} of {len(wanted)}: {row.name}", flush=True)
        try:
            results.append(bench.row(row))
        except TrainingError as error:
            print(f"  failed: {error}", flush=True)
    bench.picture(wanted)
    found: Result = {"rows": results, "settings": bench.settings, "hardware": hardware()}
    found |= {"versions": versions(), "commit": commit()}
    write_atomically(given.folder / "results.json", json.dumps(found, indent=2).encode() + b"\n")
    text = f"{table(results)}\n\n{costs(results)}\n"
    write_atomically(given.folder / "table.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
