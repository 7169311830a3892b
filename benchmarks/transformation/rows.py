"""The rows of the tables, and what the papers report for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

# Ito, Kinoshita & Kiya, IEEE Access 2021, Tables 1 (CIFAR-10) and 2 (CIFAR-100): accuracy in
# percent of ResNet-20 and VGG16. "le" is Tanaka's method there, "pixel" the pixel-based one under
# one key, "gan" that of Sirichotedumrong & Kiya 2020. They give no row for alpha = 0.
_COLUMNS = ("resnet20", "vgg16_bn")
_TABLES: Mapping[str, Mapping[str, Sequence[float]]] = {
    "cifar10": {
        "plain": (91.55, 92.49),
        "alpha=0.005": (90.46, 81.82),
        "alpha=0.01": (91.56, 91.59),
        "alpha=0.05": (91.98, 44.30),
        "alpha=0.1": (68.91, 10.00),
        "le": (87.02, 86.96),
        "pixel": (86.66, 88.00),
        "gan": (82.55, 81.57),
    },
    "cifar100": {
        "plain": (67.72, 71.90),
        "alpha=0.005": (66.08, 71.01),
        "alpha=0.01": (46.44, 66.28),
        "alpha=0.05": (62.86, 67.86),
        "alpha=0.1": (1.43, 1.00),
        "le": (61.30, 60.17),
        "pixel": (60.89, 62.41),
        "gan": (50.02, 53.93),
    },
}
KEYED = ("le", "pixel")
PAPER_ALPHAS = (0.0, 0.005, 0.01, 0.05, 0.1)


@dataclass(frozen=True)
class Row:
    """One line of a table: a classifier, a protection, a seed.

    ``protection`` is "plain", a keyed cipher's name (one key for all images), "gan", or
    "alpha=A" for the transformation network.
    """

    classifier: str
    protection: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.classifier}_{self.protection}_{self.seed}"

    @property
    def alpha(self) -> float | None:
        """Of a transformation network; None for everything else."""
        start, _, value = self.protection.partition("=")
        return float(value) if start == "alpha" else None

    def paper(self, data: str) -> float | None:
        """The accuracy that the paper reports, in percent; None where it has no such row."""
        reported = _TABLES.get(data, {}).get(self.protection)
        if reported is None or self.classifier not in _COLUMNS:
            return None
        return reported[_COLUMNS.index(self.classifier)]


def protections(alphas: Sequence[float], others: Sequence[str]) -> tuple[str, ...]:
    """Names of rows: plain first, since the networks build on its classifier."""
    return ("plain", *(f"alpha={alpha:g}" for alpha in alphas), *others)


def rows(classifiers: Sequence[str], wanted: Sequence[str], seeds: int) -> Iterator[Row]:
    """All rows, seed by seed."""
    for seed, classifier, protection in product(range(seeds), classifiers, wanted):
        yield Row(classifier, protection, seed)
