"""ITN-Attack: a U-Net learns to undo a protection, from pairs that the attacker makes himself."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from fedenc.attacks import learning
from fedenc.attacks.base import Attack, Cost, Findings, Knowledge, Means, Method, Observation
from fedenc.attacks.learning import INPUTS, Learner
from fedenc.errors import AttackError
from fedenc.training.config import TrainingConfig
from fedenc.training.recipes import recipe
from fedenc.transformation.bundle import Transformation
from fedenc.transformation.unet import UNet

# By preset: the U-Net's widths, and how to train it. "full" is as published.
PRESETS: dict[str, tuple[tuple[int, ...], TrainingConfig]] = {
    "small": ((24, 48, 96), recipe("ito-short", epochs=30, batch_size=32, learning_rate=0.1)),
    "full": ((64, 128, 256, 512, 1024), recipe("ito")),
}


class InverseUNet(nn.Module):
    """A U-Net from any number of channels to one or three: float N×c×H×W to N×C×H×W in [0, 1]."""

    def __init__(self, channels: int, outputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = nn.Identity() if channels == 3 else nn.Conv2d(channels, 3, 1)
        self.unet = UNet(widths)
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.unet(self.enter(x))
        return found[:, : self.outputs]


@dataclass(frozen=True)
class _UNetAttack(Attack):
    """What both forms of the attack share.

    Args:
        preset: "small" takes minutes on a CPU; "full" is as published, for a GPU: widths 64 to
            1024, 200 epochs at rate 0.1, divided by 5 after 60, 120 and 160 of them.
        epochs: passes over the public images; 0: those of the preset.
    """

    preset: str = "small"
    epochs: int = 0
    source: ClassVar[str] = (
        "Ito, Kinoshita & Kiya, GCCE 2020; Ito, Kinoshita & Kiya, IEEE Access 2021, §IV"
    )
    cost: ClassVar[Cost] = "minutes"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise AttackError(f"preset is {self.preset!r}, expected one of {', '.join(PRESETS)}")
        if self.epochs:
            learning.require_positive(epochs=self.epochs)

    def learner(self) -> Learner:
        """Mean squared error on [0, 1], sigmoid output, mirrored images as the only augmentation,
        and the weights that do best on a tenth of the images, as published."""
        widths, config = PRESETS[self.preset]
        return Learner(
            self.name,
            lambda canvas: InverseUNet(canvas.channels, canvas.plain[0], widths),
            replace(config, epochs=self.epochs or config.epochs),
            multiple=2 ** (len(widths) - 1),
            mirrored=True,
        )


@dataclass(frozen=True)
class InverseNetwork(_UNetAttack):
    """Trains a U-Net to undo a cipher, on public images that are encrypted for the purpose.

    Where images share a key, an owner's device encrypts the public ones. Under independent keys the
    attacker uses keys of his own, and the network learns what such a ciphertext still tells. All of
    that is in its canonical form, which by default is what the network sees.

    Args:
        preset: see above.
        epochs: see above.
        input: "ciphertext", "canonical" (the canonical form), or "auto": the latter under
            independent keys, for ciphers that have one.
        owners: keys attacked at most; the mean of the public images is the estimate for others.
    """

    input: str = "auto"
    owners: int = 4
    name: ClassVar[str] = "itn"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.PUBLIC, Knowledge.CHOSEN})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input not in INPUTS:
            raise AttackError(f"input is {self.input!r}, expected one of {', '.join(INPUTS)}")
        learning.require_positive(owners=self.owners)

    def unsuitable(self, method: Method) -> str | None:
        return learning.without_cipher(method)

    def run(self, observation: Observation, means: Means) -> Findings:
        return learning.undo_cipher(
            self.learner(), observation, means, owners=self.owners, input=self.input
        )


@dataclass(frozen=True)
class InverseOfNetwork(_UNetAttack):
    """Trains a U-Net to undo the shared transformation network, which every participant holds."""

    name: ClassVar[str] = "itn-network"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.PUBLIC, Knowledge.NETWORK})

    def unsuitable(self, method: Method) -> str | None:
        if method.name == Transformation.name:
            return None
        return "needs images that a shared transformation network protects"

    def run(self, observation: Observation, means: Means) -> Findings:
        return learning.undo_network(self.learner(), observation, means)
