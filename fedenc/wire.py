"""Shards and small facts as Flower records, and back.

The only module of the library that imports Flower. A message holds one ``facts`` record with JSON
and, for every shard, one record of raw arrays. It uses no pickle and copies arrays only once, into
bytes.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedenc.errors import ShardError
from fedenc.shard import DTYPES, Manifest, Shard

_FACTS = "facts"
_SHARD = "shard."
_MANIFEST = "manifest."
_RAW = "fedenc.raw"  # little-endian C-order bytes, described by dtype and shape
# The only dtypes that are accepted; NumPy's own parser would accept much more than names.
_DTYPES = {d.name: d for d in (*DTYPES.values(), np.dtype("<f4"))}


def pack(facts: dict[str, Any], shards: Sequence[Shard] = ()) -> RecordDict:
    """Turn JSON-able facts and shards into the content of one message."""
    config = ConfigRecord({"json": json.dumps(facts)})
    content = RecordDict({_FACTS: config})
    for i, shard in enumerate(shards):
        config[f"{_MANIFEST}{i}"] = shard.manifest.to_json()
        content[f"{_SHARD}{i}"] = pack_arrays(shard.arrays())
    return content


def unpack_facts(content: RecordDict) -> dict[str, Any]:
    """Read the facts of a message that may come from anyone.

    Raises:
        ShardError: there are none, or they are not a JSON object.
    """
    try:
        facts = json.loads(str(content.config_records[_FACTS]["json"]))
    except (KeyError, ValueError, RecursionError):
        raise ShardError("message has no readable facts") from None
    if not isinstance(facts, dict):
        raise ShardError(f"message's facts are {type(facts).__name__}, expected an object")
    return facts


def unpack_shards(content: RecordDict) -> Iterator[Shard | ShardError]:
    """Read the shards of a message that may come from anyone, or why one cannot be read.

    Only the form is checked here; :func:`fedenc.shard.check` checks the contents. Arrays are
    read-only views of the message's bytes, so copy what you need for longer.
    """
    config = content.config_records.get(_FACTS, ConfigRecord())
    records = content.array_records  # Flower sorts all records out anew at every access
    for i in range(sum(key.startswith(_SHARD) for key in records)):
        try:
            manifest = Manifest.from_json(str(config[f"{_MANIFEST}{i}"]))
            arrays = unpack_arrays(records[f"{_SHARD}{i}"])
            if missing := {"images", "ids", "views"} - arrays.keys():
                raise ShardError(f"shard lacks {sorted(missing)}")
            if unknown := arrays.keys() - DTYPES.keys():
                raise ShardError(f"shard has unknown arrays {sorted(unknown)}")
            yield Shard(manifest, **arrays)
        except KeyError:
            yield ShardError(f"message has no complete shard {i}")
        except ShardError as error:
            yield error


def pack_arrays(arrays: dict[str, npt.NDArray[Any]]) -> ArrayRecord:
    """Raw arrays as one Flower record."""
    return ArrayRecord({name: _packed(array) for name, array in arrays.items()})


def _packed(array: npt.NDArray[Any]) -> Array:
    dtype = array.dtype.name
    data = array.astype(_DTYPES[dtype], copy=False).tobytes()
    return Array(dtype, tuple(array.shape), _RAW, data)


def unpack_arrays(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    """Read-only views of a record's arrays.

    Raises:
        ShardError: another encoding or dtype, or bytes that do not fill the shape.
    """
    arrays = {}
    for name, array in record.items():
        try:
            if array.stype != _RAW or array.dtype not in _DTYPES:
                raise ValueError(f"encoding {array.stype[:40]!r} of {array.dtype[:40]!r}")
            if min(array.shape, default=1) < 0:
                raise ValueError(f"shape {array.shape}")
            arrays[name] = np.frombuffer(array.data, _DTYPES[array.dtype]).reshape(array.shape)
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise ShardError(f"array {name!r} cannot be read: {error}") from None
    return arrays
