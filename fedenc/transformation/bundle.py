"""Bundles: what the third party hands out, as safetensors and JSON. No file in one is executed.

A bundle folder holds ``participants/`` (``h.safetensors`` and ``h.json``: the transformation
network) and ``provider/`` (``psi.safetensors`` and ``psi.json``: the classifier that understands
its output; ``foreign.*``, if asked for, one that never met it). Each side needs only its own.
"""

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc import documents
from fedenc.errors import TrainingError, TransformationError
from fedenc.files import write_atomically
from fedenc.models.network import Network
from fedenc.training.model_files import load_model, weights_sha256

PARTICIPANTS, PROVIDER = "participants", "provider"  # folders in a bundle
PSI, FOREIGN = "psi", "foreign"  # classifiers in the provider's folder
WEIGHTS, INFO = "h.safetensors", "h.json"
FORMAT = 2  # 1 had no digest of h.json

_NETWORKS = {"unet": ("unet", "UNet"), "gan": ("gan", "Generator")}  # method -> module, class
_CHUNK = {"cpu": 16, "cuda": 256}  # images computed at once; on a CPU what its cache holds


def build(method: str, architecture: Mapping[str, Any]) -> nn.Module:
    """A network of a method, float N×3×H×W in [0, 1] to the same, with fresh weights."""
    module, name = _NETWORKS[method]
    network: nn.Module = getattr(import_module(f"fedenc.transformation.{module}"), name)(
        **architecture
    )
    return network


@dataclass(frozen=True)
class Transformation:
    """A trained transformation network, as participants use it. Equal weights make equal ones.

    Attributes:
        name: what stands in a manifest in place of a cipher's name.
        exact: no image can be restored exactly; that is the point.
        digest: SHA-256 of the weights, in hexadecimal.
        info: ``h.json``: method, architecture, size, classes, the data and the configuration of the
            training, what it was measured to do on images held out there, and the digest of ψ.
        network: in evaluation mode.
    """

    name: ClassVar[str] = "transformation"
    exact: ClassVar[bool] = False

    digest: str
    info: Mapping[str, Any] = field(repr=False, compare=False)
    network: nn.Module = field(repr=False, compare=False)

    @property
    def method(self) -> str:
        return str(self.info["method"])

    @cached_property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels of the images that it was trained on, and takes."""
        height, width = self.info["size"]
        return height, width

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the classifier tells apart."""
        return tuple(self.info["classes"])

    def params(self) -> dict[str, bool | int | float | str]:
        """Public parameters, as a cipher has them: what a provider may know and check."""
        return {"method": self.method, "digest": self.digest}

    def output_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """The shape (C, H, W) of a protected image; TransformationError if images do not fit."""
        if (channels, height, width) != (3, *self.size):
            wanted = "×".join(map(str, (3, *self.size)))
            raise TransformationError(
                f"images are {channels}×{height}×{width}; this transformation network was trained "
                f"on {wanted}; convert and resize the images, or use a bundle trained on their size"
            )
        return channels, height, width

    def require_classes(self, classes: Sequence[str]) -> None:
        """TransformationError unless the data set has the classes that it was trained on."""
        if tuple(classes) != self.classes:
            raise TransformationError(
                f"the data set has {_classes(classes)}; this transformation network was trained "
                f"for {_classes(self.classes)}; use a bundle that was trained for the same classes"
            )

    def to(self, device: torch.device) -> "Transformation":
        """The same on another device, for measurements; this one stays where it is."""
        return dataclasses.replace(self, network=copy.deepcopy(self.network).to(device))

    def protect(self, images: Tensor, *, batch_size: int | None = None) -> Tensor:
        """Protect images: ``round(255 · h(x / 255))``, the 8-bit images that leave a participant.

        On one machine, for one number of threads and one ``batch_size``, an image's result depends
        on nothing but the image: batches are filled up to one size, for arithmetic on another
        number of images may differ in the last bit.

        Args:
            images: uint8 N×3×H×W on any device, N may be 0.
            batch_size: images computed at once; None: what suits the network's device.

        Returns:
            uint8 N×3×H×W on the images' device.

        Raises:
            TransformationError: images of another dtype, rank or size.
        """
        protected = torch.empty_like(images, memory_format=torch.contiguous_format)
        for part, outputs in self._outputs(images, batch_size):
            protected[part] = outputs.mul(255).round().to(images.device, torch.uint8)
        return protected

    def transform(self, images: Tensor, *, batch_size: int | None = None) -> Tensor:
        """``h(x / 255)`` before it is rounded: float32 N×3×H×W in [0, 1], otherwise ``protect``."""
        result = torch.empty(images.shape, dtype=torch.float32, device=images.device)
        for part, outputs in self._outputs(images, batch_size):
            result[part] = outputs.to(images.device)
        return result

    def _outputs(self, images: Tensor, batch_size: int | None) -> Iterator[tuple[slice, Tensor]]:
        """Outputs of consecutive parts of the images, on the network's device."""
        found = f"{str(images.dtype).removeprefix('torch.')} {'×'.join(map(str, images.shape))}"
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise TransformationError(f"images are {found}; expected uint8 N×3×H×W")
        self.output_shape(*images.shape[1:])
        device = next(self.network.parameters()).device
        size = batch_size or _CHUNK.get(device.type, _CHUNK["cuda"])
        for start in range(0, len(images), size):
            part = slice(start, min(start + size, len(images)))
            count = part.stop - start
            # TensorFloat-32 would make a pixel's value depend on the make of the GPU.
            exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            with torch.no_grad(), exact:
                x = F.pad(images[part].to(device), (0,) * 7 + (size - count,)).float().div_(255)
                x = x.contiguous(memory_format=torch.channels_last)
                outputs: Tensor = self.network(x)[:count]
            yield part, outputs


def save_transformation(
    folder: Path,
    network: nn.Module,
    *,
    method: str,
    architecture: Mapping[str, Any],
    size: tuple[int, int],
    classes: Sequence[str],
    info: Mapping[str, Any],
) -> Transformation:
    """Write the participants' part of a bundle, and return what they will load.

    ``architecture`` are the arguments that ``build`` takes beside ``method``; ``info`` holds
    further facts, all of them public, as JSON values.
    """
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)
    facts = dict(info) | {
        "format": FORMAT,
        "method": method,
        "architecture": dict(architecture),
        "size": list(size),
        "classes": list(classes),
        "sha256": weights_sha256(network),
    }
    weights = {name: t.detach().contiguous() for name, t in network.state_dict().items()}
    directory = folder / PARTICIPANTS
    write_atomically(directory / WEIGHTS, safetensors.torch.save(weights))
    text = json.dumps(documents.sealed(facts), indent=2, sort_keys=True) + "\n"
    write_atomically(directory / INFO, text.encode())
    return Transformation(facts["sha256"], documents.unsealed(text), network)


def load_transformation(folder: Path) -> Transformation:
    """The participants' part of a bundle; ``folder`` is the bundle, or its ``participants``.

    TransformationError if something is missing, damaged, of another version, or if the bundle's two
    parts come from different trainings.
    """
    directory = _inside(folder, PARTICIPANTS, INFO)
    try:
        info = read_info(directory / INFO)
        if info["format"] not in (1, FORMAT):
            raise TransformationError(
                f"{directory / INFO} has format {info['format']!r}; this version reads {FORMAT}; "
                "use the version of fedenc that wrote it, or train the network again"
            )
        tensors = safetensors.torch.load((directory / WEIGHTS).read_bytes())
        with torch.device("meta"):  # the file's tensors take the place of these
            network = build(info["method"], info["architecture"])
        network.load_state_dict(tensors, assign=True)
        found, expected = weights_sha256(network), info["sha256"]
        transformation = Transformation(found, info, network.eval().requires_grad_(False))
        transformation.output_shape(3, *transformation.size)
        if not transformation.classes:
            raise ValueError("it names no classes")
    except OSError as error:
        raise TransformationError(
            f"{error.filename} cannot be read ({error.strerror}); participants need {WEIGHTS} and "
            f"{INFO}; copy the whole bundle, or make one with `fedenc transformation train`"
        ) from error
    except (
        *(safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError),
        *(RuntimeError, OverflowError, RecursionError, TrainingError),
    ) as error:
        raise _unusable(directory, error) from error
    if found != expected:
        raise TransformationError(
            f"{directory / WEIGHTS} does not have the digest that {INFO} names; copy both files "
            "from the same bundle"
        )
    network.to(memory_format=torch.channels_last)
    if folder != directory and (folder / PROVIDER).is_dir():
        require_pair(transformation, load_classifier(folder)[1])
    return transformation


def read_info(path: Path) -> dict[str, Any]:
    """The content of an ``h.json``; OSError or ValueError if it is not there or not whole."""
    return documents.unsealed(path.read_bytes(), since="format")


@dataclass(frozen=True)
class Bundle:
    """Both parts of a bundle, as they lie in ``folder``; ``foreign`` is None where there is none.

    ``validation`` is what the network does to images held out of its training: see
    ``measure.collapse``.
    """

    folder: Path
    transformation: Transformation
    psi: Network
    foreign: Network | None

    @property
    def validation(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.transformation.info["validation"]
        return found


def load_bundle(folder: Path) -> Bundle:
    """Both parts of a bundle, with all classifiers; TransformationError as of each part."""
    has_foreign = (folder / PROVIDER / f"{FOREIGN}.json").exists()
    return Bundle(
        folder,
        load_transformation(folder),
        load_classifier(folder)[0],
        load_classifier(folder, stem=FOREIGN)[0] if has_foreign else None,
    )


def load_classifier(folder: Path, *, stem: str = PSI) -> tuple[Network, dict[str, Any]]:
    """A classifier of the provider's part, and what is told about it (its ``classes``, the digest
    of its ``transformation``, ...); ``folder`` is the bundle, or its ``provider``.

    ``stem`` is "psi", or "foreign". TransformationError if it is missing or damaged.
    """
    directory = _inside(folder, PROVIDER, f"{stem}.json")
    try:
        return load_model(directory, stem=stem)
    except TrainingError as error:
        raise TransformationError(
            f"{error}; copy the whole bundle, or make one with `fedenc transformation train`"
        ) from error


def require_pair(transformation: Transformation, details: Mapping[str, Any]) -> None:
    """TransformationError unless a classifier with these ``details`` belongs to the network."""
    if details.get("transformation") != transformation.digest:
        raise TransformationError(
            f"the classifier belongs to the transformation network "
            f"{str(details.get('transformation'))[:12]}…, and this one is "
            f"{transformation.digest[:12]}…; take both from the same bundle"
        )


def _inside(folder: Path, part: str, name: str) -> Path:
    """Where a part of a bundle lies, if the user named the bundle or the part."""
    if not folder.is_dir():
        raise TransformationError(
            f"{folder} is not a folder; expected a bundle, as `fedenc transformation train` makes "
            "one"
        )
    return folder if (folder / name).exists() and not (folder / part).is_dir() else folder / part


def _unusable(directory: Path, error: Exception) -> TransformationError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return TransformationError(
        f"{directory} is not a usable transformation bundle: {type(error).__name__}: {reason}; "
        "copy it again"
    )


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} classes ({shown})"
