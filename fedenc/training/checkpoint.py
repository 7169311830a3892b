"""Checkpoints: one safetensors container whose header carries a JSON document.

Nothing in it is executed when it is read.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from fedenc.errors import TrainingError
from fedenc.training import identity

_KEY = "fedenc"  # the header's only entry: safetensors does not keep the order of several
VERSION = 2


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
