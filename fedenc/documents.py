"""JSON that anyone may have written, and JSON documents that know whether they are whole."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

SEAL = "seal"  # the field of a sealed document that holds its SHA-256


def parse(data: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not UTF-8, not JSON, nested too deeply, or with a number that is not finite.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its own SHA-256."""
    return {**document, SEAL: _sha256(document)}


def unsealed(data: bytes | str, *, since: str | None = None) -> dict[str, Any]:
    """A sealed document without its SHA-256, from JSON.

    Args:
        since: the field with the document's version; documents of version 1 had no SHA-256.

    Raises:
        ValueError: as ``parse``; or it is no object, has no SHA-256, or another one than it says.
    """
    document = parse(data)
    if not isinstance(document, dict):
        raise ValueError(f"it holds {type(document).__name__}, not an object")
    if since is not None and document.get(since) == 1 and SEAL not in document:
        return document
    content = {key: value for key, value in document.items() if key != SEAL}
    if document.get(SEAL) != _sha256(content):
        raise ValueError("its content does not have the digest that it names")
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _sha256(document: Mapping[str, Any]) -> str:
    # As it will be read: keys are text there, and sorted as text.
    read = json.loads(json.dumps(document))
    text = json.dumps(read, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
