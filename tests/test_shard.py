"""Shards: whatever is changed in one, byte or field, is refused, and says why."""

import contextlib
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedenc.errors import ShardError
from fedenc.shard import DTYPES, TRAIN, Manifest, Rules, Shard, check, seal

SHAPE = (3, 4, 5)
RULES = Rules(
    participants=10,
    shape=SHAPE,
    classes=4,
    views=2,
    ciphers=(("pixel", {"color_shuffle": True}), ("none", {})),
)


def honest(**changes: Any) -> Shard:
    generator = np.random.Generator(np.random.Philox(1))
    parts: dict[str, Any] = {
        "participant": 3,
        "purpose": TRAIN,
        "nonce": bytes(range(16)),
        "cipher": "pixel",
        "params": {"color_shuffle": True},
        "images": generator.integers(0, 256, (6, *SHAPE), dtype=np.uint8),
        "ids": np.array([0, 0, 7, 7, 1 << 40, 1 << 40]),
        "original": SHAPE,
        "labels": np.array([0, 1, 2, 3, 0, 1]),
        "views": np.array([0, 1, 1, 0, 0, 1]),
        "view_count": 2,
    }
    return seal(**(parts | changes))


def refused(shard: Shard, rules: Rules = RULES, purpose: str = TRAIN) -> str:
    with pytest.raises(ShardError) as error:
        check(shard, rules, purpose=purpose)
    return str(error.value)


def test_an_honest_shard_passes() -> None:
    check(honest(), RULES, purpose=TRAIN)
    check(honest(cipher="none", params={}), RULES, purpose=TRAIN)
    shard = honest()
    assert {name: a.dtype for name, a in shard.arrays().items()} == dict(DTYPES)
    assert shard.participant == 3


@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    shard = honest()
    name = data.draw(st.sampled_from(sorted(shard.arrays())))
    array = shard.arrays()[name].copy()
    flat = array.reshape(-1).view(np.uint8)
    flat[data.draw(st.integers(0, len(flat) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert refused(replace(shard, **{name: array}))


OTHER: dict[str, st.SearchStrategy[Any]] = {
    "participant": st.integers(0, 9),
    "purpose": st.sampled_from(["plain", "encrypted", ""]),
    "nonce": st.binary(min_size=16, max_size=16).map(bytes.hex) | st.text(max_size=40),
    "cipher": st.sampled_from(["none", "Pixel", ""]) | st.text(max_size=5),
    "params": st.dictionaries(
        st.sampled_from(["color_shuffle", "x"]),
        st.booleans() | st.integers(0, 1) | st.floats() | st.text(max_size=3),
        max_size=2,
    ),
    "views": st.integers(-3, 40),
    "rows": st.integers(-1, 12) | st.just(10**30),
    "shape": st.permutations(SHAPE).map(tuple) | st.tuples(*[st.integers(1, 9)] * 3),
    "original": st.tuples(*[st.integers(1, 9)] * 3),
    "version": st.integers(-1, 3),
    "digest": st.binary(min_size=32, max_size=32).map(bytes.hex) | st.text(max_size=70),
}


@pytest.mark.parametrize("name", OTHER)
@given(st.data())
def test_any_changed_field_is_refused(name: str, data: st.DataObject) -> None:
    shard = honest()
    value = data.draw(OTHER[name])
    before = getattr(shard.manifest, name)
    lie = replace(shard, manifest=replace(shard.manifest, **{name: value}))
    if json.dumps(value) != json.dumps(before):
        assert refused(lie)


def test_every_field_of_a_manifest_is_lied_about_above() -> None:
    assert OTHER.keys() == asdict(honest().manifest).keys()


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "who": ({"participant": 10}, "participant 10, expected 0 to 9"),
    "negative": ({"participant": -1}, "participant -1"),
    "nonce": ({"nonce": b"short"}, "nonce is not 32 hexadecimal digits"),
    "cipher": ({"cipher": "none"}, "cipher none with"),
    "parameters": ({"params": {"color_shuffle": False}}, "allowed are pixel with"),
    "type of a parameter": ({"params": {"color_shuffle": 1}}, "allowed are pixel with"),
    "label": ({"labels": np.array([0, 1, 2, 4, 0, 0])}, "labels run from 0 to 4, expected 0 to 3"),
    "negative label": ({"labels": np.array([0, 1, 2, -1, 0, 0])}, "labels run from -1"),
    "no labels": ({"labels": None}, "arrays are"),
    "fewer labels": ({"labels": np.array([0])}, "labels have shape"),
    "matrix of labels": ({"labels": np.zeros((6, 1), int)}, "labels have shape"),
    "negative id": ({"ids": np.array([0, 0, 7, 7, -1, -1])}, "id is negative"),
    "image twice": ({"ids": np.array([0, 0, 7, 7, 7, 7])}, "duplicate"),
    "view missing": ({"ids": np.array([0, 0, 7, 8, 9, 9])}, "not every image comes in 2 views"),
    "view beyond": ({"views": np.array([0, 1, 1, 0, 0, 2])}, "view numbers"),
    "view below": ({"views": np.array([0, 1, 1, 0, 0, -1])}, "view numbers"),
    "view count": ({"view_count": 3}, "3 views of an image, expected 2"),
    "size": ({"images": np.zeros((6, 3, 4, 4), np.uint8)}, r"images are \(3, 4, 4\)"),
    "channels": ({"images": np.zeros((6, 1, 4, 5), np.uint8)}, r"images are \(1, 4, 5\)"),
    "floats": ({"images": np.zeros((6, *SHAPE), np.float32)}, "dtype float32"),
    "empty": (
        {
            "images": np.zeros((0, *SHAPE), np.uint8),
            "ids": np.zeros(0, int),
            "labels": np.zeros(0, int),
            "views": np.zeros(0, int),
        },
        "0 images, expected at least one",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_under_an_honest_digest(name: str) -> None:
    changes, expected = LIES[name]
    with pytest.raises(ShardError, match=expected):
        check(honest(**changes), RULES, purpose=TRAIN)


def test_queries_carry_no_labels() -> None:
    rules = replace(RULES, views=1)
    query = honest(purpose="plain", labels=None, views=None, view_count=1, ids=np.arange(6))
    check(query, rules, purpose="plain")
    assert "purpose" in refused(query, rules, "encrypted")
    labelled = honest(purpose="plain", views=None, view_count=1, ids=np.arange(6))
    assert "arrays are" in refused(labelled, rules, "plain")


def test_all_problems_are_reported_at_once() -> None:
    shard = honest(participant=99, cipher="x", labels=np.zeros(1, int), nonce=b"")
    with pytest.raises(ShardError) as error:
        check(shard, RULES, purpose=TRAIN)
    assert len(error.value.problems) == 4


def test_manifest_round_trip() -> None:
    manifest = honest().manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert " " not in manifest.to_json()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.data())
def test_hostile_manifests_raise_nothing_but_shard_errors(data: st.DataObject) -> None:
    values: Any = asdict(honest().manifest)
    for name in data.draw(st.sets(st.sampled_from(sorted(values)), max_size=2)):
        values[name] = data.draw(json_values)
    for name in data.draw(st.sets(st.sampled_from(sorted(values)), max_size=1)):
        del values[name]
    values |= data.draw(st.dictionaries(st.text(max_size=3), json_values, max_size=1))
    shard = honest()
    with contextlib.suppress(ShardError):
        lie = replace(shard, manifest=Manifest.from_json(json.dumps(values)))
        check(lie, RULES, purpose=TRAIN)
        assert lie.manifest == shard.manifest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "NaN",
        "{" * 100_000,
        "[" * 100_000,
        '{"rows": 1' + "0" * 5000 + "}",
        '"\\ud800"',
        '{"shape": ' + "[" * 900 + "]" * 900 + "}",
        '{"\\ud800": 1}',
    ],
)
def test_what_is_no_manifest(text: str) -> None:
    with pytest.raises(ShardError):
        Manifest.from_json(text)


def test_a_sealed_shard_is_its_own_copy_only_where_it_must_be() -> None:
    images = np.zeros((6, *SHAPE), np.uint8)
    assert honest(images=images).images is images
    flipped = honest(images=images[..., ::-1])
    assert flipped.images.flags.c_contiguous
    check(flipped, RULES, purpose=TRAIN)
