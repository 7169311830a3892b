"""Checkpoints and model directories: safetensors and JSON, written whole or not at all.

A checkpoint is one safetensors container whose header carries a JSON document; nothing in it is
executed when it is read. A model directory holds ``model.safetensors`` and ``config.json``; a model
of another stem, such as "psi", is ``psi.safetensors`` and ``psi.json``.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fedenc import models
from fedenc.errors import TrainingError
from fedenc.files import write_atomically
from fedenc.models.network import Network
from fedenc.training import identity

_KEY = "fedenc"  # the header's only entry: safetensors does not keep the order of several
STEM, WEIGHTS, CONFIG = "model", "model.safetensors", "config.json"
VERSION = 1


def files(stem: str = STEM) -> tuple[str, str]:
    """The names of a model's two files: weights and configuration."""
    return (WEIGHTS, CONFIG) if stem == STEM else (f"{stem}.safetensors", f"{stem}.json")


def pack(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> bytes:
    """Tensors and a JSON document as bytes; equal content gives equal bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return safetensors.torch.save(plain, {_KEY: header})


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of ``pack``; TrainingError if the bytes are not whole."""
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"checkpoint of {len(data)} bytes is damaged or not one of ours ({error}); "
            "take an older one, or start again without it"
        ) from error
    return tensors, document


def resume(
    data: bytes,
    run: Mapping[str, Any],
    put_back: Callable[[dict[str, Tensor], dict[str, Any]], None],
    *,
    format: str = "version",
    version: int = VERSION,
) -> None:
    """Hand a run's checkpoint to ``put_back``.

    Args:
        data: what ``pack`` made of tensors and a document with ``run`` and the format's version.
        run: what makes the run that is to go on this run; see ``identity``.
        format: the document's entry that holds the version.

    Raises:
        TrainingError: bytes that are not whole, of another version, or of another run.
    """
    tensors, document = unpack(data)
    if document.get(format) != version:
        raise TrainingError(
            f"checkpoint has {format} {document.get(format)!r}; expected {version}; start again "
            "without it"
        )
    identity.require_same(document.get("run", {}), run)
    try:
        put_back(tensors, document)
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"checkpoint lacks what its run needs ({str(error).splitlines()[0]}); "
            "take an older one, or start again without it"
        ) from error


def weights_sha256(model: torch.nn.Module) -> str:
    """SHA-256 over all parameters and buffers, sorted by name: name, dtype, shape and bytes.

    It does not depend on the device or on the memory layout.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode() + b"\n")
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model(
    directory: Path,
    model: Network,
    *,
    details: Mapping[str, Any] | None = None,
    stem: str = STEM,
) -> str:
    """Write a model directory and return the SHA-256 of the weights.

    ``details`` (JSON values: class names, training configuration, ...) is kept in the JSON file.
    """
    weights_file, config_file = files(stem)
    sha256 = weights_sha256(model)
    config = {
        "format": VERSION,
        "architecture": asdict(model.architecture),
        "sha256": sha256,
        "details": dict(details or {}),
    }
    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_atomically(directory / weights_file, safetensors.torch.save(weights))
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    write_atomically(directory / config_file, text.encode())
    return sha256


def load_model(directory: Path, *, stem: str = STEM) -> tuple[Network, dict[str, Any]]:
    """The network of a model directory, in evaluation mode on the CPU, and its ``details``.

    TrainingError if a file is missing, damaged, or the two do not belong together.
    """
    weights_file, config_file = files(stem)
    try:
        config = json.loads((directory / config_file).read_bytes())
        tensors = safetensors.torch.load((directory / weights_file).read_bytes())
        found = config["format"]
        if found != VERSION:
            raise TrainingError(
                f"{directory / config_file} has format {found!r}; this version reads {VERSION}"
            )
        architecture = config["architecture"]
        size = tuple(architecture.pop("size"))
        model = models.build(**architecture, size=size)
        model.load_state_dict(tensors)
        expected, details = config["sha256"], dict(config["details"])
    except OSError as error:
        raise TrainingError(
            f"{error.filename} cannot be read ({error.strerror}); "
            f"a model directory holds {weights_file} and {config_file}"
        ) from error
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{directory} is not a usable model directory: {reason}") from error
    if weights_sha256(model) != expected:
        raise TrainingError(
            f"{directory / weights_file} does not have the digest that {config_file} names; "
            "copy both files from the same run"
        )
    return model.eval(), details
