"""The wire: what goes in comes out, and nothing that comes in raises but a shard error."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fedenc.errors import ShardError
from fedenc.shard import Shard, seal
from fedenc.wire import pack, pack_arrays, unpack_arrays, unpack_facts, unpack_shards


def shard(participant: int = 0, rows: int = 2, labelled: bool = True) -> Shard:
    return seal(
        participant=participant,
        purpose="train" if labelled else "plain",
        nonce=bytes([participant]) * 16,
        cipher="pixel",
        params={"color_shuffle": True, "gain": 0.1, "name": "é"},
        images=np.arange(rows * 48).astype(np.uint8).reshape(rows, 3, 4, 4),
        ids=np.arange(rows),
        original=(3, 4, 4),
        labels=np.arange(rows) if labelled else None,
    )


def same(a: Any, b: Shard) -> bool:
    return (
        isinstance(a, Shard)
        and a.manifest == b.manifest
        and a.arrays().keys() == b.arrays().keys()
        and all(np.array_equal(x, b.arrays()[n]) for n, x in a.arrays().items())
        and all(x.dtype == b.arrays()[n].dtype for n, x in a.arrays().items())
    )


def test_round_trip() -> None:
    sent = [shard(0), shard(1, rows=5), shard(2, labelled=False)]
    content = pack({"hosted": [1, 2], "x": None}, sent)
    assert unpack_facts(content) == {"hosted": [1, 2], "x": None}
    received = list(unpack_shards(content))
    assert len(received) == 3
    assert all(map(same, received, sent))
    assert list(unpack_shards(pack({}))) == []


def test_a_byte_travels_as_a_byte_and_is_read_without_a_copy() -> None:
    content = pack({}, [shard(rows=100)])
    (record,) = content.array_records.values()
    assert len(record["images"].data) == 100 * 48
    (received,) = unpack_shards(content)
    assert isinstance(received, Shard)
    assert not received.images.flags.owndata
    assert not received.images.flags.writeable


@given(
    arrays_of.arrays(
        st.sampled_from(["uint8", "<i2", ">i4", "<i8", ">f4"]),
        arrays_of.array_shapes(max_dims=4, max_side=5),
    ),
    st.booleans(),
)
def test_arrays_of_any_order_and_layout(array: Any, transposed: bool) -> None:
    array = array.T if transposed else array
    back = unpack_arrays(pack_arrays({"a": array}))["a"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype.isnative


def _with_array(**changes: Any) -> RecordDict:
    content = pack({}, [shard()])
    record = content.array_records["shard.0"]
    old = record["images"]
    parts: dict[str, Any] = {
        "dtype": old.dtype,
        "shape": tuple(old.shape),
        "stype": old.stype,
        "data": old.data,
    }
    record["images"] = Array(**(parts | changes))
    return content


BAD_ARRAYS: dict[str, dict[str, Any]] = {
    "pickle": {"dtype": "object"},
    "numpy's own format": {"stype": "numpy.ndarray"},
    "no such dtype": {"dtype": "uint9"},
    "a structure": {"dtype": "i4,(2,"},
    "an expression": {"dtype": "(" * 1000},
    "a subarray": {"dtype": "(1000000000,1000000000)u1"},
    "void": {"dtype": "V0"},
    "dates": {"dtype": "M8[ns]"},
    "too few bytes": {"data": b"123"},
    "no bytes": {"data": b""},
    "any size": {"shape": (-1, 3, 4, 4)},
    "two signs": {"shape": (-2, -3, 4, 4)},
    "overflow": {"shape": (2**62, 2**62, 4, 4)},
    "beyond C": {"shape": (2**70,)},
    "many dimensions": {"shape": (1,) * 100},
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_an_array_that_cannot_be_read(name: str) -> None:
    (received,) = unpack_shards(_with_array(**BAD_ARRAYS[name]))
    assert isinstance(received, ShardError)
    assert len(str(received)) < 2000


def test_one_bad_shard_hides_no_other() -> None:
    content = pack({}, [shard(0), shard(1), shard(2)])
    content.config_records["facts"]["manifest.1"] = "{}"
    received = list(unpack_shards(content))
    assert isinstance(received[1], ShardError)
    assert same(received[0], shard(0))
    assert same(received[2], shard(2))


def test_unknown_and_missing_arrays() -> None:
    content = pack({}, [shard(0), shard(1)])
    content.array_records["shard.0"]["plain"] = content.array_records["shard.0"]["images"]
    del content.array_records["shard.1"]["ids"]
    unknown, missing = unpack_shards(content)
    assert "unknown arrays ['plain']" in str(unknown)
    assert "lacks ['ids']" in str(missing)


@pytest.mark.parametrize(
    "json", ["", "[]", "7", "{", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}", b"\xff", 7, [1, 2]]
)
def test_facts_that_cannot_be_read(json: Any) -> None:
    with pytest.raises(ShardError):
        unpack_facts(RecordDict({"facts": ConfigRecord({"json": json})}))


names = st.sampled_from(["facts", "shard.0", "shard.1", "shard.", "manifest.0", "x"])
config_values = (
    st.text(max_size=8)
    | st.binary(max_size=8)
    | st.integers(-(2**63), 2**63 - 1)
    | st.just(shard().manifest.to_json())
)
configs = st.dictionaries(
    st.sampled_from(["json", "manifest.0", "manifest.1", "x"]), config_values, max_size=3
).map(ConfigRecord)
arrays = st.builds(
    Array,
    st.sampled_from(["uint8", "int64", "int16", "int32", "float32", "object", "V8", "?"]),
    st.lists(st.integers(-2, 4), max_size=4).map(tuple),
    st.sampled_from(["fedenc.raw", "numpy.ndarray", ""]),
    st.binary(max_size=64),
)
array_records = st.dictionaries(
    st.sampled_from(["images", "ids", "views", "labels", "x"]), arrays, max_size=5
).map(ArrayRecord)


@given(st.dictionaries(names, configs | array_records, max_size=4).map(RecordDict))
def test_hostile_records_raise_nothing_but_shard_errors(content: RecordDict) -> None:
    try:
        facts = unpack_facts(content)
    except ShardError:
        pass
    else:
        assert isinstance(facts, dict)
    assert all(isinstance(s, Shard | ShardError) for s in unpack_shards(content))
