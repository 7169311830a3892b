"""Key derivation: policies, separation, repeats, and that the master stays out of sight."""

import pickle
import struct
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedenc.errors import CipherError, KeyfileError
from fedenc.keys import POLICIES, KeyRing, Policy, new_nonce
from fedenc.keys.keystream import Keystream

MASTER = bytes(range(32))
NONCE = bytes(range(100, 116))


def stream(ring: KeyRing | None = None, n: int = 64, **changes: object) -> np.ndarray:
    arguments: dict = {
        "method": "pixel",
        "policy": "image",
        "purpose": "train",
        "nonce": NONCE,
        "ids": np.arange(3),
        "views": 0,
    }
    return (ring or KeyRing(MASTER, 7)).keystream(**(arguments | changes)).bytes(n)


def reference_subkey(policy: Policy, image: int, view: int, participant: int = 7) -> bytes:
    """The documented derivation, written down once more with struct and hashlib alone."""
    owner, nonce = struct.pack("<q", participant), NONCE
    identity = [struct.pack("<q", image), struct.pack("<q", view)]
    if policy != "image":
        nonce, identity = b"", [b"", b""]
    if policy == "same":
        owner = b""
    fields = [b"\x01", b"pixel", b"train", owner, nonce, *identity]
    message = b"".join(struct.pack("<I", len(field)) + field for field in fields)
    return blake2b(message, key=MASTER, digest_size=32, person=b"fedenc/subkey").digest()


@pytest.mark.parametrize("policy", POLICIES)
def test_subkeys_follow_the_documented_derivation(policy: Policy) -> None:
    ids, views = np.array([5, 2**40, -1]), np.array([0, 3, 1])
    found = KeyRing(MASTER, 7).keystream(
        method="pixel", policy=policy, purpose="train", nonce=NONCE, ids=ids, views=views
    )
    subkeys = [reference_subkey(policy, int(i), int(v)) for i, v in zip(ids, views, strict=True)]
    if policy != "image":
        assert len(set(subkeys)) == 1
        subkeys = subkeys[:1]
    assert found.count == 3
    assert found.streams == len(subkeys)
    assert np.array_equal(found.bytes(200), Keystream(subkeys, 3).bytes(200))


def test_golden_bytes() -> None:
    golden = {
        "same": "97a8b2ce4830e74f2a5adef241d492fda8a8ca3fb72cf1bb",
        "client": "4bb8922f35721dbf408cd3caa0fafa9b3fc1616799bfc662",
        "image": "7c6684ea79e34e3f11567a226378ebc1b45237b33d45db6b",
    }
    for policy, expected in golden.items():
        assert stream(policy=policy, n=24)[-1].tobytes().hex() == expected
    assert (
        KeyRing(MASTER, 7).secret("query", 3, "x", b"y").hex()
        == "8eecd3f0f578e69d3f734c35eff0e5280c2d19047b1f014042e79a8daa7d2a2e"
    )
    assert KeyRing.simulated(1, 2).fingerprint == "bf42c77bca5437dd"
    assert KeyRing.simulated("1", 2, shared=True).fingerprint == "e92aa34f4f2c6c10"


CHANGES = {
    "method": {"method": "pixe"},
    "purpose": {"purpose": "query"},
    "nonce": {"nonce": bytes(16)},
    "id": {"ids": np.arange(3) + 1000},
    "view": {"views": 1},
    "participant": {"ring": KeyRing(MASTER, 8)},
    "master": {"ring": KeyRing(MASTER[::-1], 7)},
}
KEPT = {
    "image": set(CHANGES),
    "client": {"method", "purpose", "participant", "master"},
    "same": {"method", "purpose", "master"},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_drops_exactly_its_fields(policy: Policy, change: str) -> None:
    before = stream(policy=policy, n=512)
    after = stream(**{"policy": policy, "n": 512} | CHANGES[change])
    if change in KEPT[policy]:
        # unrelated streams: about half of 4096 bits differ (±6 standard deviations)
        differing = np.unpackbits(before ^ after, axis=1).sum(axis=1)
        assert (abs(differing - 2048.0) < 6 * 32).all()
    else:
        assert np.array_equal(before, after)


def test_fields_do_not_run_into_each_other() -> None:
    assert not np.array_equal(
        stream(method="pixel", purpose="train"), stream(method="pixelt", purpose="rain")
    )


def test_streams_of_a_batch_are_those_of_single_images() -> None:
    ids = np.array([4, 0, 9])
    whole = stream(ids=ids)
    for row, image in zip(whole, ids, strict=True):
        assert np.array_equal(stream(ids=np.array([image]))[0], row)


def test_images_of_a_batch_have_unrelated_streams() -> None:
    streams = np.unpackbits(stream(ids=np.arange(64), n=512), axis=1).astype(np.int32)
    distances = (streams[:, None] != streams[None]).sum(axis=-1)[np.triu_indices(64, 1)]
    assert (abs(distances - 2048.0) < 6 * 32).all()


@pytest.mark.parametrize("views", [0, np.zeros(3, np.int64)])
def test_repeated_id_and_view_is_refused(views: object) -> None:
    with pytest.raises(CipherError, match="id 5 with view 0 comes twice"):
        stream(ids=np.array([5, 1, 5]), views=views)
    stream(ids=np.array([5, 1, 5]), views=np.array([0, 0, 1]))
    stream(ids=np.array([5, 1, 5]), policy="client")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "images"}, "key policy is 'images', expected one of same, client, image"),
        ({"nonce": b"short"}, "nonce is 5 bytes, policy 'image' needs 16"),
        ({"ids": np.zeros((2, 2), np.int64)}, "ids is an array of int64 with shape"),
        ({"ids": np.zeros(3)}, "ids is an array of float64"),
        ({"views": np.zeros(2, np.int64)}, "views holds 2"),
    ],
)
def test_bad_requests_end_in_one_clear_line(change: dict, message: str) -> None:
    with pytest.raises(CipherError, match=message):
        stream(**change)


def test_empty_batch() -> None:
    assert stream(ids=np.empty(0, np.int64)).shape == (0, 64)
    assert stream(ids=[]).shape == (0, 64)
    assert stream(ids=np.empty(0, np.int64), policy="same").shape == (1, 64)


def test_secrets_are_separate_from_each_other_and_from_subkeys() -> None:
    ring = KeyRing(MASTER, 7)
    contexts = [(), (5,), ("5",), (b"5",), (5, 5), (55,), ("a", "b"), ("ab",), (2**70,), (-5,)]
    found = {ring.secret("query", *context) for context in contexts}
    found |= {ring.secret("order"), ring.for_participant(8).secret("query")}
    assert len(found) == len(contexts) + 2
    assert reference_subkey("image", 0, 0) not in found


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**40))
def test_master_is_never_shown(master: bytes, participant: int) -> None:
    ring = KeyRing(master, participant)
    for text in (repr(ring), str(ring), f"{ring}", repr([ring])):
        assert master.hex() not in text
        assert repr(master)[2:-1] not in text
        assert ring.fingerprint in text
    assert not hasattr(ring, "__dict__")


def test_key_rings_compare_and_pickle() -> None:
    ring = KeyRing(MASTER, 7)
    assert ring == KeyRing(MASTER, 7)
    assert hash(ring) == hash(KeyRing(MASTER, 7))
    assert ring != ring.for_participant(6)
    assert ring != KeyRing(bytes(32), 7)
    assert ring != "ring"
    assert pickle.loads(pickle.dumps(ring)) == ring


def test_generated_masters_differ() -> None:
    assert KeyRing.generate() != KeyRing.generate()
    assert KeyRing.generate(4).participant == 4
    assert len(new_nonce()) == 16
    assert new_nonce() != new_nonce()


def test_simulated_masters_depend_on_seed_and_participant() -> None:
    prints = {KeyRing.simulated(s, p).fingerprint for s in (0, 1, "0", "x") for p in range(5)}
    assert len(prints) == 20
    shared = [KeyRing.simulated(3, p, shared=True) for p in range(5)]
    assert len({ring.fingerprint for ring in shared}) == 1
    assert [ring.participant for ring in shared] == list(range(5))
    same = [stream(ring, policy="same") for ring in shared]
    client = [stream(ring, policy="client").tobytes() for ring in shared]
    assert all(np.array_equal(same[0], other) for other in same)
    assert len(set(client)) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((bytes(31),), "found 31 bytes"), (("a" * 32,), "found str"), ((bytes(32), -1), "is -1")],
)
def test_bad_masters_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(KeyfileError, match=message):
        KeyRing(*arguments)
