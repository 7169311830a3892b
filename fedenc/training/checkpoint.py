"""Checkpoints: one safetensors container whose header carries a JSON document.

The document follows a SHA-256 of itself and all tensors, so that no damage passes for weights.
Nothing in a checkpoint is executed when it is read.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from fedenc.errors import TrainingError
from fedenc.training import identity
from fedenc.training.model_files import update

_KEY = "fedenc"  # the header's only entry: safetensors does not keep the order of several
_DIGEST = 64  # hexadecimal digits
VERSION = 3


def pack(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> bytes:
    """Tensors and a JSON document as bytes; equal content gives equal bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return safetensors.torch.save(plain, {_KEY: _sha256(plain, text) + text})


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of ``pack``; TrainingError if the bytes are not whole."""
    try:
        length = int.from_bytes(data[:8], "little")
        found = json.loads(data[8 : 8 + length])["__metadata__"][_KEY]
        if found.startswith("{"):
            raise TrainingError("checkpoint is of an earlier version; start again without it")
        tensors = safetensors.torch.load(data)
        text = found[_DIGEST:]
        if found[:_DIGEST] != _sha256(tensors, text):
            raise ValueError("its content does not have the digest that it names")
        document = json.loads(text)
    except (
        *(safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError),
        *(RecursionError, OverflowError),
    ) as error:
        raise TrainingError(
            f"checkpoint of {len(data)} bytes is damaged or not one of ours ({error}); "
            "take an older one, or start again without it"
        ) from error
    return tensors, document


def _sha256(tensors: Mapping[str, Tensor], text: str) -> str:
    found = hashlib.sha256(text.encode())
    update(found, tensors)
    return found.hexdigest()


def resume(
    data: bytes,
    run: Mapping[str, Any],
    put_back: Callable[[dict[str, Tensor], dict[str, Any]], None],
) -> None:
    """Hand a run's checkpoint to ``put_back``.

    Args:
        data: what ``pack`` made of tensors and a document with ``run`` and ``version``.
        run: what makes the run that is to go on this run; see ``identity``.

    Raises:
        TrainingError: bytes that are not whole, of another version, or of another run.
    """
    tensors, document = unpack(data)
    if (found := document.get("version")) != VERSION:
        raise TrainingError(
            f"checkpoint has version {found!r}; expected {VERSION}; start again without it"
        )
    identity.require_same(document.get("run", {}), run)
    try:
        put_back(tensors, document)
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"checkpoint lacks what its run needs ({str(error).splitlines()[0]}); "
            "take an older one, or start again without it"
        ) from error
