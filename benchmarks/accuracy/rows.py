"""The rows of the accuracy table, each a scenario of one owner who holds all the images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from fedenc.scenario import Scenario, parse

PROTECTIONS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"cipher": "none"},
    "np-same": {"color_shuffle": False, "keys": "same"},
    "np-image": {"color_shuffle": False, "keys": "image"},
    "np-cs-image": {"color_shuffle": True, "keys": "image"},
}
FRONTS = ("raw", "conv1x1", "invariant")
DOMAINS = ("none", "plain", "encrypted")  # augmented by nobody, by owners, by the server
VIEWS = 4  # augmented copies an owner uploads under keys of their own, where it augments


@dataclass(frozen=True)
class Row:
    """One trained model: how images are protected, what enters it, who augments, and the seed."""

    protection: str
    front: str
    domain: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.protection}_{self.front}_{self.domain}_{self.seed}"

    def scenario(self, base: Mapping[str, Mapping[str, Any]], augmentation: str) -> Scenario:
        """The row as a scenario, on top of what all rows share; ``augmentation`` is done by whoever
        augments, and every query is asked plain and as the training images were protected."""
        encryption = dict(PROTECTIONS[self.protection])
        same = encryption.get("keys") == "same"
        queries = ["plain", *(["same-key"] if same else ["encrypted"]) * ("keys" in encryption)]
        # The strongest features that the protection leaves alone: sorting costs without CS.
        stage = "invariant" if encryption.get("color_shuffle") else "invariant-np"
        return parse(
            {
                **base,
                "seed": self.seed,
                "clients": {"count": 1} | dict(base.get("clients", {})),
                "encryption": encryption
                | {
                    "seed": f"accuracy-{self.seed}",
                    "views": VIEWS if self.domain == "plain" else 1,
                },
                "augmentation": {
                    "domain": self.domain,
                    "train": augmentation,
                    "server": augmentation,
                },
                "model": {
                    "input": stage if self.front == "invariant" else "raw",
                    "adapter": "conv1x1" if self.front == "conv1x1" else None,
                }
                | dict(base.get("model", {})),
                "inference": {"queries": queries, "images": 1_000_000},
            }
        )


def rows(seeds: int) -> Iterator[Row]:
    """All rows, seed by seed."""
    for seed, protection, front, domain in product(range(seeds), PROTECTIONS, FRONTS, DOMAINS):
        yield Row(protection, front, domain, seed)
