"""What a transformation network is trained to be, as a plain frozen dataclass.

Importing it loads no torch: the scenario's section takes names and defaults from here.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fedenc import models
from fedenc.training import ranges

Method = Literal["unet", "gan"]  # Ito et al. 2021, or after Sirichotedumrong & Kiya 2020
FeatureName = Literal["vgg16-relu2_2", "vgg16-relu1_2", "classifier"]  # the last: of ψ
METHODS: tuple[str, ...] = get_args(Method)
FEATURES: tuple[str, ...] = get_args(FeatureName)


@dataclass(frozen=True)
class TransformationConfig:
    """A transformation network and its loss. TrainingError lists everything that is out of range.

    The defaults are the published ones (Ito, Kinoshita & Kiya, IEEE Access 2021, and the code
    published with it).
    """

    method: Method = "unet"
    alpha: float = 0.01  # weight of the distance between the features of plain and protected
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)  # channels, from full resolution down
    features: FeatureName = "vgg16-relu2_2"  # φ; the paper's text says vgg16-relu1_2
    feature_weights: str | None = None  # VGG16 weights, .pth or .safetensors; None: downloaded
    classifier: str = "resnet20"  # ψ: a name that fedenc.models knows
    foreign: bool = True  # also train a second classifier, which the network never meets

    def __post_init__(self) -> None:
        two_or_more = len(self.widths) >= 2
        whole = all(type(width) is int and width >= 1 for width in self.widths)
        taken_from_psi = self.features == "classifier"
        known = models.names()
        ranges.check(
            "transformation",
            self,
            (
                ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
                ("alpha", 0 <= self.alpha < math.inf, "0 or more"),
                ("widths", two_or_more and whole, "two or more positive whole numbers"),
                ("features", self.features in FEATURES, f"one of {', '.join(FEATURES)}"),
                (
                    "feature_weights",
                    not (self.feature_weights and taken_from_psi),
                    'none with features = "classifier"',
                ),
                ("classifier", self.classifier in known, f"one of {', '.join(known)}"),
            ),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON. Of a local file only the name is told, not where it lay."""
        weights = self.feature_weights
        told = None if weights is None else Path(weights).name
        return ranges.plain(self) | {"feature_weights": told}
