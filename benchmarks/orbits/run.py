"""Train on canonical forms, with two networks, and write one JSON and one table.

``python -m benchmarks.orbits.run --root DATA --folder runs/orbits`` does what is not done yet.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.resumable import claim, public
from fedenc.files import write_atomically
from fedenc.provenance import commit, hardware, versions
from fedenc.scenario import Scenario, parse
from simulations import central, run
from simulations.experiment import prepare
from simulations.study.table import over_seeds

CIPHERS = ("none", "pixel", "etc", "scramble", "le", "ele")
MODELS = ("tiny", "set")  # a usual network, and one that sees no place
Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One trained model: the cipher, under an independent key for every image, what the network
    sees, the network, and the seed."""

    cipher: str
    input: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.cipher}_{self.input}_{self.model}_{self.seed}"

    def scenario(self, base: Mapping[str, Mapping[str, Any]]) -> Scenario:
        """The row as a scenario of one owner, on top of what all rows share. Nobody augments."""
        encrypted = self.cipher != "none"
        return parse(
            {
                **base,
                "seed": self.seed,
                "clients": {"count": 1} | dict(base.get("clients", {})),
                "encryption": {"cipher": self.cipher, "seed": f"orbits-{self.seed}"},
                "augmentation": {"domain": "none"},
                "model": {"input": self.input, "name": self.model},
                "inference": {
                    "queries": ["plain", "encrypted"] if encrypted else ["plain"],
                    "images": 1_000_000,
                },
            }
        )


def rows(seeds: int, ciphers: Sequence[str] = CIPHERS) -> Iterator[Row]:
    """All rows, seed by seed."""
    for seed in range(seeds):
        for cipher in ciphers:
            for model in MODELS:
                yield Row(cipher, "raw" if cipher == "none" else "invariant", model, seed)


def main() -> None:
    """Train what the command line asks for; print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--root", type=Path, help="where the data set lies")
    parser.add_argument("--folder", type=Path, default=Path("runs/orbits"))
    parser.add_argument("--ciphers", nargs="+", choices=CIPHERS, default=CIPHERS)
    parser.add_argument("--images", type=int, default=5000, help="train on so many")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: all cores")
    given = parser.parse_args()
    settings: Result = {
        "data": {"name": given.data, "root": None if given.root is None else str(given.root)},
        "clients": {"images": given.images},
        "training": {"epochs": given.epochs, "learning_rate": given.learning_rate},
        "server": {"threads": given.threads},
    }
    folder: Path = given.folder
    claim(folder, settings)
    wanted = list(rows(given.seeds, given.ciphers))
    results = []
    for number, row in enumerate(wanted, start=1):
        print(f"{number} of {len(wanted)}: {row.name}", flush=True)
        results.append(measure(row, settings, folder / row.name))
        found: Result = {"rows": results, "settings": public(settings), "hardware": hardware()}
        found |= {"versions": versions(), "commit": commit()}
        write_atomically(folder / "orbits.json", json.dumps(found, indent=1).encode() + b"\n")
    print(table(results))


def measure(row: Row, settings: Mapping[str, Any], folder: Path) -> Result:
    """One row: trained now, or read where it is finished."""
    experiment = prepare(row.scenario(settings), row.name)
    perform = central.in_folder(folder)
    facts = run.record(experiment, folder, perform, resume=folder.exists()).result
    shares = {kind: found["overall"] for kind, found in facts["accuracy"].items()}
    return asdict(row) | {
        "accuracy": shares.get("encrypted", shares["plain"]),
        "plain": shares["plain"],
        "agreement": facts["agreement"]["plain_vs_encrypted"],
        "seconds": facts["training"]["seconds"],
        "sha256": facts["model"]["sha256"],
    }


def table(results: Sequence[Result]) -> str:
    """Means over seeds with their sample deviation, in percent, as Markdown."""
    groups: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result["cipher"], result["input"], result["model"]].append(result)
    lines = [
        "| cipher | input | network | encrypted % | plain % | agree % | seeds |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for (cipher, stage, model), group in groups.items():
        cells = [
            spread([100 * result[key] for result in group if result[key] is not None])
            for key in ("accuracy", "plain", "agreement")
        ]
        lines.append(f"| {cipher} | {stage} | {model} | {' | '.join(cells)} | {len(group)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """The mean and the sample deviation; empty without values."""
    if not values:
        return ""
    mean, deviation, _ = over_seeds(values)
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
