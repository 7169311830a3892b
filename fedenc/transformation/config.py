"""What a transformation network is trained to be, as a plain frozen dataclass."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedenc import models
from fedenc.errors import TrainingError

METHODS = ("unet", "gan")
FEATURES = ("vgg16-relu2_2", "vgg16-relu1_2", "classifier")


@dataclass(frozen=True)
class TransformationConfig:
    """A transformation network and its loss. TrainingError lists everything that is out of range.

    The defaults are the published ones (Ito, Kinoshita & Kiya, IEEE Access 2021, and the code
    published with it).
    """

    method: str = "unet"  # unet (Ito et al. 2021), or gan (after Sirichotedumrong & Kiya 2020)
    alpha: float = 0.01  # weight of the distance between the features of plain and protected
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)  # channels of the U-Net's levels
    features: str = "vgg16-relu2_2"  # φ; the paper's text says vgg16-relu1_2; classifier: of ψ
    feature_weights: str | None = None  # VGG16 weights, .pth or .safetensors; None: downloaded
    classifier: str = "resnet20"  # ψ: a name that fedenc.models knows
    foreign: bool = False  # also train a second classifier, which the network never meets

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r}; expected {expected}"
            for name, good, expected in (
                ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
                ("alpha", 0 <= self.alpha < math.inf, "0 or more"),
                (
                    "widths",
                    len(self.widths) >= 2 and all(type(w) is int and w >= 1 for w in self.widths),
                    "two or more positive whole numbers",
                ),
                ("features", self.features in FEATURES, f"one of {', '.join(FEATURES)}"),
                (
                    "feature_weights",
                    not (self.feature_weights and self.features == "classifier"),
                    'none with features = "classifier"',
                ),
                (
                    "classifier",
                    self.classifier in models.names(),
                    f"one of {', '.join(models.names())}",
                ),
            )
            if not good
        ]
        if problems:
            raise TrainingError(f"transformation: {'; '.join(problems)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON. Of a local file only the name is told, not where it lay."""
        weights = self.feature_weights
        return dataclasses.asdict(self) | {
            "widths": list(self.widths),
            "feature_weights": None if weights is None else Path(weights).name,
        }
