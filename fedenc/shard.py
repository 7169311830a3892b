"""What a participant sends: images, their public description, and a digest that binds both.

A shard carries either training images with labels (purpose ``train``) or query images without
(purpose = the inference condition). Neither keys, key seeds, plain pixels of encrypting
participants nor data-set indices are in it: ids are the participant's own.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from fedenc.errors import ShardError

VERSION = 2  # counts changes of shards and of how ciphers draw their keys
TRAIN = "train"
NONCE_BYTES = 16
_NONCE = re.compile(f"[0-9a-f]{{{2 * NONCE_BYTES}}}")

ParamValue = bool | int | float | str

# Cipher and parameters in the manifest of images that are not protected.
UNPROTECTED: tuple[str, Mapping[str, ParamValue]] = ("none", MappingProxyType({}))


@dataclass(frozen=True)
class Manifest:
    """The public description of a shard. Everything in it may be seen by anyone."""

    participant: int
    purpose: str  # "train" or an inference condition
    nonce: str  # 32 hex digits, fresh for every upload and query batch
    cipher: str
    params: Mapping[str, ParamValue]  # public parameters of the cipher
    views: int  # ciphertexts of every image
    rows: int  # images in the shard, all views counted
    shape: tuple[int, int, int]  # C, H, W as sent
    original: tuple[int, int, int]  # C, H, W before the cipher
    version: int = VERSION
    digest: str = ""  # SHA-256 of all the above and of the arrays

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no white space."""
        return self._json(self.digest)

    def digestible(self) -> bytes:
        """The part of the manifest that its digest covers: all except the digest itself."""
        return self._json("").encode()

    def _json(self, digest: str) -> str:
        values = vars(self) | {"params": dict(self.params), "digest": digest}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Rebuild a manifest from JSON that may come from anyone.

        Raises:
            ShardError: not JSON, not an object, or other fields or types than a manifest has.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise ShardError("manifest is not valid JSON") from None
        if problems := list(_mistyped(values)):
            raise ShardError(problems)
        values["shape"], values["original"] = tuple(values["shape"]), tuple(values["original"])
        return cls(**values)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_int(v) and v > 0 for v in value)


def _is_params(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(v, ParamValue) for v in value.values())


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "participant": _is_int,
    "purpose": _is_text,
    "nonce": _is_text,
    "cipher": _is_text,
    "params": _is_params,
    "views": _is_int,
    "rows": _is_int,
    "shape": _is_shape,
    "original": _is_shape,
    "version": _is_int,
    "digest": _is_text,
}


def _mistyped(values: Any) -> Iterable[str]:
    if not isinstance(values, dict):
        yield f"manifest is {type(values).__name__}, expected an object"
        return
    if unknown := sorted(str(k)[:40] for k in values.keys() - _FIELDS.keys()):
        yield f"manifest has unknown fields {unknown}"
    if missing := sorted(_FIELDS.keys() - values.keys()):
        yield f"manifest lacks {missing}"
    for name, valid in _FIELDS.items():
        if name in values and not valid(values[name]):
            found = values[name]
            shown = type(found).__name__ if isinstance(found, dict | list) else repr(found)[:60]
            yield f"manifest field {name} has an unusable value: {shown}"


@dataclass(frozen=True)
class Shard:
    """Images of one participant and their manifest.

    Attributes:
        images: uint8 R×C×H×W.
        ids: int64 (R,), the participant's own numbers for its images.
        views: int16 (R,), 0 to ``manifest.views - 1``.
        labels: int32 (R,) for training shards, None for queries.
    """

    manifest: Manifest
    images: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.int64]
    views: npt.NDArray[np.int16]
    labels: npt.NDArray[np.int32] | None = field(default=None)

    @property
    def participant(self) -> int:
        """The id of the participant that made the shard."""
        return self.manifest.participant

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, in the order in which they are hashed and stored."""
        named: dict[str, npt.NDArray[Any]]
        named = {"images": self.images, "ids": self.ids, "views": self.views}
        return named if self.labels is None else named | {"labels": self.labels}

    def compute_digest(self) -> str:
        """SHA-256 over the manifest without its digest, and the bytes of all arrays."""
        h = hashlib.sha256(self.manifest.digestible())
        for array in self.arrays().values():
            h.update(np.ascontiguousarray(array).data)
        return h.hexdigest()


DTYPES: Mapping[str, np.dtype[Any]] = {
    "images": np.dtype(np.uint8),
    "ids": np.dtype("<i8"),
    "views": np.dtype("<i2"),
    "labels": np.dtype("<i4"),
}


def seal(
    *,
    participant: int,
    purpose: str,
    nonce: bytes,
    cipher: str,
    params: Mapping[str, ParamValue],
    images: npt.NDArray[np.uint8],
    ids: npt.NDArray[np.integer[Any]],
    original: tuple[int, int, int],
    labels: npt.NDArray[np.integer[Any]] | None = None,
    views: npt.NDArray[np.integer[Any]] | None = None,
    view_count: int = 1,
) -> Shard:
    """Describe what will be sent, and compute its digest.

    Args:
        images: uint8 R×C×H×W, already protected.
        ids: (R,) participant-local ids; every id occurs ``view_count`` times.
        original: C, H, W before the cipher.
        views: (R,) view numbers; None: all zero.
    """
    rows, channels, height, width = images.shape
    manifest = Manifest(
        participant=participant,
        purpose=purpose,
        nonce=nonce.hex(),
        cipher=cipher,
        params=dict(params),
        views=view_count,
        rows=rows,
        shape=(channels, height, width),
        original=original,
    )
    shard = Shard(
        manifest,
        np.ascontiguousarray(images),
        np.ascontiguousarray(ids, dtype=DTYPES["ids"]),
        np.zeros(rows, DTYPES["views"])
        if views is None
        else np.ascontiguousarray(views, dtype=DTYPES["views"]),
        None if labels is None else np.ascontiguousarray(labels, dtype=DTYPES["labels"]),
    )
    return replace(shard, manifest=replace(manifest, digest=shard.compute_digest()))


@dataclass(frozen=True)
class Rules:
    """What a receiver accepts; everything here is public.

    Attributes:
        participants: ids 0 to participants-1 may send.
        shape: C, H, W every image must have.
        classes: labels run from 0 to classes-1.
        views: ciphertexts expected of every image.
        ciphers: (name, parameters) pairs allowed.
    """

    participants: int
    shape: tuple[int, int, int]
    classes: int
    views: int
    ciphers: tuple[tuple[str, Mapping[str, ParamValue]], ...]

    @cached_property
    def methods(self) -> list[str]:
        """The allowed ciphers as text."""
        return [_method(name, params) for name, params in self.ciphers]


def check(shard: Shard, rules: Rules, *, purpose: str) -> None:
    """Compare every field with the bytes and with the rules.

    Raises:
        ShardError: with all problems found.
    """
    problems = list(_array_problems(shard, purpose))
    problems += _manifest_problems(shard.manifest, rules, purpose)
    if not problems:  # contents are checked only if their form is right
        problems += _content_problems(shard, rules)
    if problems:
        raise ShardError(problems)


def _array_problems(shard: Shard, purpose: str) -> Iterable[str]:
    m = shard.manifest
    arrays = shard.arrays()
    expected = {"images", "ids", "views"} | ({"labels"} if purpose == TRAIN else set())
    if arrays.keys() != expected:
        yield f"arrays are {sorted(arrays)}, expected {sorted(expected)}"
    for name, array in arrays.items():
        shape = (m.rows, *m.shape) if name == "images" else (m.rows,)
        if array.dtype != DTYPES[name]:
            yield f"{name} have dtype {array.dtype}, expected {DTYPES[name]}"
        if array.shape != shape:
            yield f"{name} have shape {array.shape}, the manifest says {shape}"


def _manifest_problems(m: Manifest, rules: Rules, purpose: str) -> Iterable[str]:
    if m.version != VERSION:
        yield f"version {m.version}, expected {VERSION}"
    if m.purpose != purpose:
        yield f"purpose {m.purpose[:40]!r}, expected {purpose!r}"
    if not 0 <= m.participant < rules.participants:
        yield f"participant {m.participant}, expected 0 to {rules.participants - 1}"
    if not _NONCE.fullmatch(m.nonce):
        yield f"nonce is not {2 * NONCE_BYTES} hexadecimal digits"
    if m.shape != rules.shape:
        yield f"images are {m.shape} (channels, height, width), expected {rules.shape}"
    if m.rows < 1:
        yield f"{m.rows} images, expected at least one"
    if m.views != rules.views:
        yield f"{m.views} views of an image, expected {rules.views}"
    if (found := _method(m.cipher, m.params)) not in rules.methods:
        yield f"cipher {found[:100]}, allowed are {', '.join(rules.methods)}"


def _method(cipher: str, params: Mapping[str, ParamValue]) -> str:
    """A cipher with its parameters as text, in which 1, 1.0 and true differ."""
    return f"{cipher} with {json.dumps(dict(params), sort_keys=True)}"


def _content_problems(shard: Shard, rules: Rules) -> Iterable[str]:
    m = shard.manifest
    if shard.compute_digest() != m.digest:
        yield "digest does not match the bytes"
    if shard.ids.min() < 0:
        yield "an image id is negative"
    if shard.views.min() < 0 or shard.views.max() >= m.views:
        yield f"view numbers reach outside 0 to {m.views - 1}"
    order = np.lexsort((shard.views, shard.ids))
    ids, views = shard.ids[order], shard.views[order]
    same_image = ids[1:] == ids[:-1]
    if duplicates := int((same_image & (views[1:] == views[:-1])).sum()):
        yield f"{duplicates} duplicate image ids"
    elif (m.rows - int(same_image.sum())) * m.views != m.rows:
        yield f"not every image comes in {m.views} views"
    if (
        shard.labels is not None
        and not 0 <= shard.labels.min() <= shard.labels.max() < rules.classes
    ):
        yield (
            f"labels run from {shard.labels.min()} to {shard.labels.max()}, "
            f"expected 0 to {rules.classes - 1}"
        )
