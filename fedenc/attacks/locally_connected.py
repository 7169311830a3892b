"""The authors' own attack on pixel-based encryption: a network that sees one pixel at a time."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from fedenc.attacks import learning
from fedenc.attacks.base import Attack, Cost, Findings, Knowledge, Means, Method, Observation
from fedenc.attacks.learning import Canvas, Learner
from fedenc.errors import AttackError
from fedenc.models.adapters import BlockLinear
from fedenc.training.config import TrainingConfig

WIDTHS = (8, 32)  # of the hidden layers
LOSSES = ("pixel", "mean")


class PixelNetwork(nn.Module):
    """float N×c×H×W to N×C×H×W: for every pixel three layers of its own, 8-32-C, with ReLU between.

    The activations are ours: the paper does not give any.
    """

    def __init__(self, channels: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        widths = (channels, *WIDTHS, outputs)
        layers: list[nn.Module] = []
        for inputs, wide in pairwise(widths):
            layers += [BlockLinear(size[0] * size[1], inputs, wide), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x.flatten(2).transpose(1, 2))  # N×P×C
        return found.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


@dataclass(frozen=True)
class LocallyConnected(Attack):
    """Trains the authors' locally connected network on pairs of ciphertext and plain image.

    The paper calls it a ciphertext-only attack, but the network is trained on pairs: 5,000 of
    STL-10, under the key of the images attacked, or under keys of their own. Here the pairs are of
    public images, encrypted by an owner's device where images share a key.

    What the paper prints is below what a constant image scores. With the mean over all pixels as
    the loss, the weights of a pixel get a gradient smaller by the number of pixels, and hardly
    move. So here each pixel minimises its own error; ``loss="mean"`` is as published.

    Args:
        epochs: passes over the public images (published: 70).
        loss: "pixel", or "mean", as published.
        owners: keys attacked at most; the mean of the public images is the estimate for others.
    """

    epochs: int = 70
    loss: str = "pixel"
    owners: int = 4
    name: ClassVar[str] = "locally-connected"
    source: ClassVar[str] = "Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019, Table 2"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.PUBLIC, Knowledge.CHOSEN})
    cost: ClassVar[Cost] = "minutes"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise AttackError(f"loss is {self.loss!r}, expected one of {', '.join(LOSSES)}")
        learning.require_positive(epochs=self.epochs, owners=self.owners)

    def unsuitable(self, method: Method) -> str | None:
        return learning.without_cipher(method)

    def run(self, observation: Observation, means: Means) -> Findings:
        config = TrainingConfig(
            epochs=self.epochs,
            batch_size=128,
            learning_rate=0.1,
            momentum=0.9,
            nesterov=False,
            weight_decay=5e-4,
            schedule="step",
            milestones=(40 / 70, 60 / 70),
            gamma=0.1,
            normalisation="none",
            precision="fp32",
            channels_last=False,
        )
        learner = Learner(
            self.name,
            lambda canvas: PixelNetwork(canvas.channels, canvas.plain[0], canvas.size),
            config,
            factor=self._factor,
        )
        return learning.undo_cipher(
            learner, observation, means, owners=self.owners, input="ciphertext"
        )

    def _factor(self, canvas: Canvas) -> float:
        return canvas.size[0] * canvas.size[1] if self.loss == "pixel" else 1.0
