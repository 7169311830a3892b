"""A network as it is trained and stored: input stage, optional adapter, body."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from fedenc.models.inputs import InputStage
from fedenc.plugins import Parameter


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build the network again; stored with its weights."""

    name: str
    channels: int
    classes: int
    size: tuple[int, int]  # height, width in pixels
    input: str = "raw"
    adapter: str | None = None
    # the cipher whose canonical form or blocks the network reads, if it depends on one
    cipher: str | None = None
    cipher_params: Mapping[str, Parameter] = field(default_factory=dict)


class Network(nn.Module):
    """uint8 N×C×H×W images to float N×classes logits.

    ``input`` normalises, ``adapter`` is a learned front end (the identity if none is asked for),
    ``body`` is the published classifier.
    """

    def __init__(self, architecture: Architecture, adapter: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.architecture = architecture
        self.input = InputStage(
            architecture.channels,
            architecture.input,
            architecture.cipher,
            architecture.cipher_params,
        )
        self.adapter = adapter
        self.body = body

    def penalty(self) -> Tensor | None:
        """What the adapter adds to the mean loss of the last forward pass: a float32 scalar, which
        may be negative; None if it adds nothing."""
        found = getattr(self.adapter, "penalty", None)
        return found if isinstance(found, Tensor) else None

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(self.adapter(self.input(images)))
        return logits
