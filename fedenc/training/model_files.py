"""Model files: safetensors and JSON, in memory or in a folder. Nothing in them is executed.

A model is two files, ``model.safetensors`` and ``config.json``; a model of another stem, such as
"psi", is ``psi.safetensors`` and ``psi.json``.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fedenc import documents, models
from fedenc.errors import CipherError, TrainingError
from fedenc.files import write_atomically
from fedenc.models.network import Network

STEM, WEIGHTS, CONFIG = "model", "model.safetensors", "config.json"
VERSION = 2  # 1 had no digest of the configuration

ModelFiles = Mapping[str, bytes]  # of one model: file name -> content


def file_names(stem: str = STEM) -> tuple[str, str]:
    """The names of a model's two files: weights and configuration."""
    return (WEIGHTS, CONFIG) if stem == STEM else (f"{stem}.safetensors", f"{stem}.json")


def weights_sha256(model: torch.nn.Module) -> str:
    """SHA-256 over all parameters and buffers, sorted by name: name, dtype, shape and bytes.

    It does not depend on the device or on the memory layout.
    """
    found = hashlib.sha256()
    update(found, model.state_dict())
    return found.hexdigest()


def update(digest: "hashlib._Hash", tensors: Mapping[str, Tensor]) -> None:
    """Take tensors, sorted by name, into a digest: name, dtype, shape and bytes of each."""
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode() + b"\n")
        digest.update(plain.flatten().view(torch.uint8).numpy().data)


def pack_model(
    model: Network, *, details: Mapping[str, Any] | None = None, stem: str = STEM
) -> tuple[dict[str, bytes], str]:
    """A model's files, and the SHA-256 of its weights.

    ``details`` (JSON values: class names, training configuration, ...) is kept in the JSON file.
    """
    weights_file, config_file = file_names(stem)
    sha256 = weights_sha256(model)
    config = {
        "format": VERSION,
        "architecture": asdict(model.architecture),
        "sha256": sha256,
        "details": dict(details or {}),
    }
    weights = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    text = json.dumps(documents.sealed(config), indent=2, sort_keys=True) + "\n"
    files = {weights_file: safetensors.torch.save(weights), config_file: text.encode()}
    return files, sha256


def unpack_model(
    files: ModelFiles, *, stem: str = STEM, where: str = "what was sent"
) -> tuple[Network, dict[str, Any]]:
    """The network of a model's files, in evaluation mode on the CPU, and its ``details``.

    Args:
        where: what an error calls the place that the files come from.

    Raises:
        TrainingError: a file is missing or damaged, or the two do not belong together.
    """
    weights_file, config_file = file_names(stem)
    if missing := [name for name in (weights_file, config_file) if name not in files]:
        raise TrainingError(
            f"{where} lacks {' and '.join(missing)}; a model is {weights_file} and {config_file}"
        )
    try:
        config = documents.unsealed(files[config_file], since="format")
        found = config["format"]
        if found not in (1, VERSION):
            raise TrainingError(
                f"{config_file} in {where} has format {found!r}; this version reads {VERSION}"
            )
        tensors = safetensors.torch.load(files[weights_file])
        architecture = config["architecture"]
        height, width = architecture.pop("size")
        with torch.device("meta"):  # the file's tensors take the place of these
            model = models.build(**architecture, size=(height, width))
        model.load_state_dict(tensors, assign=True)
        expected, details = config["sha256"], dict(config["details"])
    except (
        *(safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError),
        *(RuntimeError, OverflowError, RecursionError, CipherError),
    ) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TrainingError(f"{where} is not a usable model directory: {reason}") from error
    if weights_sha256(model) != expected:
        raise TrainingError(
            f"{weights_file} in {where} does not have the digest that {config_file} names; "
            "copy both files from the same run"
        )
    return model.eval(), details


def save_model(
    directory: Path,
    model: Network,
    *,
    details: Mapping[str, Any] | None = None,
    stem: str = STEM,
) -> str:
    """Write a model's files into a folder and return the SHA-256 of the weights."""
    files, sha256 = pack_model(model, details=details, stem=stem)
    for name, content in files.items():
        write_atomically(directory / name, content)
    return sha256


def read_files(directory: Path, *, stem: str = STEM) -> dict[str, bytes]:
    """A model's files as they lie in a folder, not looked into.

    Raises:
        TrainingError: one is missing or cannot be read.
    """
    names = file_names(stem)
    try:
        return {name: (directory / name).read_bytes() for name in reversed(names)}
    except OSError as error:
        raise TrainingError(
            f"{error.filename} cannot be read ({error.strerror}); "
            f"a model directory holds {names[0]} and {names[1]}"
        ) from error


def load_model(directory: Path, *, stem: str = STEM) -> tuple[Network, dict[str, Any]]:
    """As ``unpack_model``, from a folder."""
    return unpack_model(read_files(directory, stem=stem), stem=stem, where=str(directory))
