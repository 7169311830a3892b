"""The feature extractor φ, in whose terms a protected image is to be far from the plain one.

Ito, Kinoshita & Kiya (IEEE Access 2021) take an early layer of VGG16 trained on ImageNet (Simonyan
& Zisserman, ICLR 2015, without batch normalisation). Their text says the second ReLU, relu1_2; the
code published with it takes relu2_2.
"""

import copy
import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training.config import IMAGENET
from fedenc.training.model_files import weights_sha256

_VGG16 = {"vgg16-relu1_2": 4, "vgg16-relu2_2": 9}  # layers to keep of those that ``_vgg16`` makes
# Layers of a classifier's body to keep: its first stage, or what reads relu2_2 in VGG16.
_STAGES = {"resnet20": 6, "resnet18": 5, "vgg16_bn": 13, "densenet40_12": 13, "fast": 9, "tiny": 9}
_ALTERNATIVES = (
    "give the file of torchvision's VGG16 weights (IMAGENET1K_V1) as feature_weights, or choose "
    'features = "classifier"'
)


@dataclass(frozen=True)
class Source:
    """Where φ came from, for the record; all of it may be published."""

    name: str  # as in the configuration
    origin: str  # "torchvision IMAGENET1K_V1", "file NAME, sha256 …", "psi, first N layers"
    sha256: str  # of the weights that φ uses

    def as_dict(self) -> dict[str, str]:
        """Plain values, for JSON."""
        return {"name": self.name, "origin": self.origin, "sha256": self.sha256}


class Features(nn.Module):
    """float N×3×H×W images in [0, 1] to feature maps. Frozen, and always in evaluation mode.

    ``shared`` is how many of the first layers of ψ's body they are: who has ψ look at an image, has
    their result. 0: they are not ψ's.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: nn.Module,
        mean: Tensor,
        std: Tensor,
        *,
        name: str,
        origin: str,
        shared: int = 0,
    ) -> None:
        super().__init__()
        self.shared = shared
        self.layers = layers
        self.register_buffer("mean", mean.detach().clone().view(-1, 1, 1))
        self.register_buffer("std", std.detach().clone().view(-1, 1, 1))
        self.requires_grad_(False)
        self.train(False)
        self.source = Source(name, origin, weights_sha256(self))

    def train(self, mode: bool = True) -> "Features":
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers((images - self.mean) / self.std)
        return features


def load(name: str, psi: Network, weights: Path | None = None) -> Features:
    """The φ of that name: "vgg16-relu2_2", "vgg16-relu1_2", or "classifier".

    VGG16's weights come from the file ``weights``, else from torchvision's download; "classifier"
    is the first stage of ``psi``, of which a copy is made. ``source`` of the result tells which.

    TrainingError if the weights cannot be had, are not VGG16's, or ``psi`` has no such layer.
    """
    if name == "classifier":
        return _of_classifier(psi)
    if name not in _VGG16:
        known = ", ".join((*_VGG16, "classifier"))
        raise TrainingError(f"features is {name!r}; expected one of {known}")
    tensors, origin = _download() if weights is None else _read(weights)
    with torch.device("meta"):  # the weights found take the place of these
        layers = _vgg16()[: _VGG16[name]]
    wanted = {key: f"features.{key}" for key in layers.state_dict()}
    try:
        found = {key: tensors[name].detach().float() for key, name in wanted.items()}
        layers.load_state_dict(found, assign=True)
    except (KeyError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(
            f"{origin} does not hold the weights of VGG16 without batch normalisation ({reason}); "
            f"{_ALTERNATIVES}"
        ) from error
    mean, std = (torch.tensor(values) for values in IMAGENET)
    return Features(layers, mean, std, name=name, origin=origin)


def _vgg16() -> nn.Sequential:
    """The first two of VGG16's stages, numbered as torchvision does: relu2_2 ends the second."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(2),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()),
    )


def _of_classifier(psi: Network) -> Features:
    architecture = psi.architecture
    count = _STAGES.get(architecture.name)
    if count is None or architecture.input != "raw" or architecture.adapter is not None:
        raise TrainingError(
            f'features is "classifier", of which {architecture.name} with input '
            f"{architecture.input} and adapter {architecture.adapter} has none; expected one of "
            f"{', '.join(_STAGES)} with raw input and no adapter"
        )
    layers = copy.deepcopy(nn.Sequential(*list(psi.body.children())[:count]))
    origin = f"psi, first {count} layers"
    mean, std = psi.input.mean, psi.input.std
    return Features(layers, mean, std, name="classifier", origin=origin, shared=count)


def _download() -> tuple[Mapping[str, Tensor], str]:
    # Takes a second to import, and is not needed by most
    from torchvision.models import VGG16_Weights

    weights = VGG16_Weights.IMAGENET1K_V1
    try:
        found = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TrainingError(
            f"VGG16's weights cannot be downloaded from {weights.url} ({reason}); {_ALTERNATIVES}"
        ) from error
    return found, "torchvision IMAGENET1K_V1"


def _read(path: Path) -> tuple[Mapping[str, Tensor], str]:
    """Tensors by name from a .safetensors file or one of torch.save, read without running code."""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if path.suffix == ".safetensors":
            tensors = safetensors.torch.load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TrainingError(
            f"feature_weights {path} cannot be read ({error.strerror or error}); {_ALTERNATIVES}"
        ) from error
    except Exception as error:  # torch.load raises whatever the file's bytes led it to
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TrainingError(
            f"feature_weights {path} is not a file of weights alone ({reason}); {_ALTERNATIVES}"
        ) from error
    if not isinstance(tensors, Mapping):
        raise TrainingError(
            f"feature_weights {path} holds a {type(tensors).__name__}; expected tensors by name; "
            f"{_ALTERNATIVES}"
        )
    return tensors, f"file {path.name}, sha256 {sha256}"
