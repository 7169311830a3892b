"""What every cipher promises, over one matrix of methods, policies and image sizes."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedenc.ciphers import Cipher, make
from fedenc.errors import CipherError
from fedenc.keys import POLICIES, KeyRing, Policy
from fedenc.keys.keystream import Keystream

RING = KeyRing(bytes(range(32)), 1)
VARIANTS: list[tuple[str, dict]] = [
    ("none", {}),
    ("pixel", {}),
    ("pixel", {"color_shuffle": False}),
    ("etc", {}),
    ("etc", {"block_size": 8}),
    ("etc", {"block_size": 16, "color_shuffle": False}),
    ("etc-gray", {}),
    ("etc-gray", {"block_size": 4, "subsampling": "4:2:0"}),
    ("le", {}),
    ("le", {"compat": "icce2018"}),
    ("ele", {}),
    ("logistic-rc4", {}),
    ("logistic-rc4", {"drop": 7}),
    ("scramble", {}),
    ("scramble", {"block_size": 4}),
]
IDS = ["-".join((name, *map(str, params.values()))) for name, params in VARIANTS]
# Beside these, any size up to 50 pixels is drawn below.
SIZES = [(1, 1), (5, 3), (32, 32), (96, 64), (257, 131)]

every_cipher = pytest.mark.parametrize(
    "cipher", [make(name, **params) for name, params in VARIANTS], ids=IDS
)


def photos(n: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, (n, channels, height, width))
    return torch.from_numpy(values.astype(np.uint8))


def keystream(cipher: Cipher, ids: object, policy: Policy = "image", **changes: object):
    arguments: dict = {"purpose": "train", "nonce": bytes(16), "ids": ids} | changes
    return RING.keystream(method=cipher.name, policy=policy, **arguments)


def restored(cipher: Cipher, plain: Tensor, found: Tensor) -> bool:
    if cipher.exact:
        return torch.equal(plain, found)
    close = cipher.params().get("subsampling") != "4:2:0"
    return plain.shape == found.shape and (
        not close or int((plain.int() - found.int()).abs().amax()) <= 2
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@every_cipher
def test_round_trip(cipher: Cipher, size: tuple[int, int], policy: Policy) -> None:
    plain = photos(2, *size)
    keys = keystream(cipher, [4, 9], policy)
    found = cipher.encrypt(plain, keys)
    assert found.dtype == torch.uint8
    assert found.shape == (2, *cipher.output_shape(3, *size))
    assert found.is_contiguous()
    assert restored(cipher, plain, cipher.decrypt(found, keys, shape=(3, *size)))


@given(
    st.sampled_from(VARIANTS),
    st.integers(0, 5),
    st.integers(1, 50),
    st.integers(1, 50),
    st.sampled_from(POLICIES),
    st.integers(0, 2**31),
)
def test_round_trip_of_any_size(
    variant: tuple[str, dict], n: int, height: int, width: int, policy: Policy, seed: int
) -> None:
    cipher = make(variant[0], **variant[1])
    plain = photos(n, height, width, seed=seed)
    keys = keystream(cipher, np.arange(n) + seed, policy)
    found = cipher.decrypt(cipher.encrypt(plain, keys), keys, shape=(3, height, width))
    assert n == 0 or restored(cipher, plain, found)


@every_cipher
def test_empty_batch(cipher: Cipher) -> None:
    for policy in POLICIES:
        keys = keystream(cipher, [], policy)
        found = cipher.encrypt(photos(0, 9, 5), keys)
        assert found.shape == (0, *cipher.output_shape(3, 9, 5))
        assert cipher.decrypt(found, keys, shape=(3, 9, 5)).shape == (0, 3, 9, 5)


@pytest.mark.parametrize("policy", POLICIES)
@every_cipher
def test_a_batch_is_its_images_one_by_one(
    cipher: Cipher, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, ids = photos(9, 20, 12), np.array([5, 3, 2**40, 0, 1, 8, 11, 7, 6])
    whole = cipher.encrypt(plain, keystream(cipher, ids, policy))
    for i, image in enumerate(ids):
        single = cipher.encrypt(plain[i : i + 1], keystream(cipher, [image], policy))
        assert torch.equal(single[0], whole[i])
    monkeypatch.setattr("fedenc.ciphers.base._SLICE_BYTES", {"cpu": 3000})
    assert torch.equal(cipher.encrypt(plain, keystream(cipher, ids, policy)), whole)
    shape = (3, 20, 12)
    found = cipher.decrypt(whole, keystream(cipher, ids, policy), shape=shape)
    assert restored(cipher, plain, found)


@every_cipher
def test_one_key_treats_equal_images_alike_and_image_keys_do_not(cipher: Cipher) -> None:
    plain = photos(1, 16, 16).expand(3, -1, -1, -1)
    for policy in POLICIES:
        found = cipher.encrypt(plain, keystream(cipher, np.arange(3), policy))
        alike = torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
        assert alike == (policy != "image" or cipher.name == "none")


@every_cipher
def test_every_part_of_the_context_changes_the_image(cipher: Cipher) -> None:
    if cipher.name == "none":
        pytest.skip("draws nothing")
    plain = photos(1, 48, 48)
    changes: list[dict] = [{}, {"purpose": "query"}, {"nonce": bytes(15) + b"x"}, {"views": 1}]
    found = [cipher.encrypt(plain, keystream(cipher, [0], **change)) for change in changes]
    found.append(cipher.encrypt(plain, keystream(cipher, [1])))
    assert len({image.numpy().tobytes() for image in found}) == 5


@every_cipher
def test_inputs_that_are_views_of_other_memory(cipher: Cipher) -> None:
    plain = photos(3, 12, 20)
    expected = cipher.encrypt(plain, keystream(cipher, np.arange(3)))
    last = plain.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    wide = torch.zeros(3, 3, 12, 41, dtype=torch.uint8)[..., 1::2].copy_(plain)
    for images in (last, wide, plain.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(cipher.encrypt(images, keystream(cipher, np.arange(3))), expected)
    assert torch.equal(plain, last)


@every_cipher
def test_results_can_go_where_the_caller_wants_them(
    cipher: Cipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = photos(7, 16, 16)
    keys = keystream(cipher, np.arange(7))
    expected = cipher.encrypt(plain, keys)
    room = torch.zeros(9, *expected.shape[1:], dtype=torch.uint8)
    for limit in (1 << 20, 1000):  # in one slice, and in several
        monkeypatch.setattr("fedenc.ciphers.base._SLICE_BYTES", {"cpu": limit})
        room.zero_()
        found = cipher.encrypt(plain, keys, out=room[1:8])
        assert found.data_ptr() == room[1:8].data_ptr()
        assert torch.equal(room[1:8], expected)
        assert int(room[0].sum() + room[8].sum()) == 0
        back = torch.empty_like(plain)
        cipher.decrypt(expected, keys, shape=(3, 16, 16), out=back)
        assert restored(cipher, plain, back)
        if expected.shape == plain.shape:
            place = plain.clone()
            assert torch.equal(cipher.encrypt(place, keys, out=place), expected)
    for wrong in (room, room[:7].int(), room[:7, :, 1:]):
        with pytest.raises(CipherError, match=r"out is torch\..*, expected torch.uint8 of shape"):
            cipher.encrypt(plain, keys, out=wrong)


@every_cipher
def test_pickles_and_copies_encrypt_alike(cipher: Cipher) -> None:
    plain = photos(2, 8, 8)
    expected = cipher.encrypt(plain, keystream(cipher, [0, 1]))
    for other in (pickle.loads(pickle.dumps(cipher)), copy.deepcopy(cipher)):
        assert other == cipher
        assert torch.equal(other.encrypt(plain, keystream(cipher, [0, 1])), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("policy", POLICIES)
@every_cipher
def test_gpu_gives_the_same_bytes(cipher: Cipher, policy: Policy) -> None:
    plain = photos(50, 33, 47)
    keys = keystream(cipher, np.arange(50), policy)
    expected = cipher.encrypt(plain, keys)
    found = cipher.encrypt(plain.cuda(), keys)
    assert found.is_cuda
    assert torch.equal(found.cpu(), expected)
    assert restored(cipher, plain, cipher.decrypt(found, keys, shape=(3, 33, 47)).cpu())


@every_cipher
def test_draws_do_not_depend_on_key_bytes(cipher: Cipher) -> None:
    """Streams stay aligned: every key moves the keystream by the same number of bytes."""
    streams = [bytes([i]) * 32 for i in range(6)]
    together = Keystream(streams, 6)
    cipher.draw(together, 3, 20, 12)
    rest = together.bytes(16)
    for key, row in zip(streams, rest, strict=True):
        alone = Keystream([key], 1)
        cipher.draw(alone, 3, 20, 12)
        assert np.array_equal(alone.bytes(16)[0], row)


@every_cipher
def test_key_parts_have_one_row_a_key(cipher: Cipher) -> None:
    for streams in (1, 4):
        keys = Keystream([bytes([i]) * 32 for i in range(streams)], 4)
        parts = cipher.draw(keys, 3, 16, 24)
        assert all(len(part) == streams for part in parts)


@every_cipher
def test_key_space_and_effective_bits(cipher: Cipher) -> None:
    bits = cipher.key_space_log2(3, 32, 32)
    assert math.isfinite(bits)
    assert cipher.effective_bits(3, 32, 32) == min(bits, 256)
    assert (bits > 0) == (cipher.name != "none")


PUBLISHED_KEY_SPACES = [
    ("pixel", {}, (3, 32, 32), 1024 * math.log2(48)),
    ("pixel", {}, (3, 1, 1), math.log2(48)),
    ("etc", {}, (3, 32, 32), 717.4),
    ("scramble", {}, (3, 32, 32), 44.25),
    ("le", {}, (3, 32, 32), 594.28),
    ("le", {"compat": "icce2018"}, (3, 32, 32), 498.3),
    ("ele", {}, (3, 4, 4), 594.28),
    ("ele", {}, (3, 32, 32), 64 * 594.28 + 296.0),
    ("etc-gray", {}, (3, 32, 32), math.log2(math.factorial(48)) + 48 * 4),
    ("etc-gray", {"subsampling": "4:2:0"}, (3, 32, 32), math.log2(math.factorial(24)) + 24 * 4),
]


@pytest.mark.parametrize(("name", "params", "shape", "bits"), PUBLISHED_KEY_SPACES)
def test_key_spaces_of_the_papers(name: str, params: dict, shape: tuple, bits: float) -> None:
    assert make(name, **params).key_space_log2(*shape) == pytest.approx(bits, rel=2e-4)


BAD: list[tuple[str, dict, str]] = [
    ("etc", {"block_size": 5}, "block_size is 5, expected one of 4, 8 and 16"),
    ("etc", {"block_size": True}, "block_size is True, expected"),
    ("etc", {"padding": "zero"}, "padding is 'zero', expected one of edge, none"),
    ("etc", {"color_shuffle": 1}, "color_shuffle is 1, expected true or false"),
    ("etc-gray", {"subsampling": "4:1:1"}, "subsampling is '4:1:1', expected one of 4:4:4, 4:2:0"),
    ("etc-gray", {"block_size": 0}, "block_size is 0, expected"),
    ("le", {"compat": "icce2019"}, "compat is 'icce2019', expected 'icce2018' or nothing"),
    ("ele", {"padding": 0}, "padding is 0, expected"),
    ("logistic-rc4", {"drop": -1}, "drop is -1, expected a number of bytes, 0 to 65536"),
    ("scramble", {"block_size": "8"}, "block_size is '8', expected"),
]


@pytest.mark.parametrize(("name", "params", "message"), BAD)
def test_bad_parameters_are_named(name: str, params: dict, message: str) -> None:
    with pytest.raises(CipherError, match=message):
        make(name, **params)


@pytest.mark.parametrize("name", ["etc", "le", "ele", "scramble", "etc-gray"])
def test_sizes_that_do_not_divide_need_padding(name: str) -> None:
    cipher = make(name, padding="none")
    with pytest.raises(CipherError, match=r"images of 33×32 do not divide .* padding='edge'"):
        cipher.encrypt(photos(1, 33, 32), keystream(cipher, [0]))
    assert cipher.encrypt(photos(1, 32, 32), keystream(cipher, [0])).shape[-1] == 32


@pytest.mark.parametrize("name", ["etc", "etc-gray"])
def test_gray_input_to_colour_methods(name: str) -> None:
    cipher = make(name)
    with pytest.raises(CipherError, match="needs images of 3 channels, found 1"):
        cipher.encrypt(photos(1, 8, 8, channels=1), keystream(cipher, [0]))


@pytest.mark.parametrize("name", ["le", "ele", "scramble", "logistic-rc4"])
@pytest.mark.parametrize("channels", [1, 4])
def test_methods_without_a_colour_step_take_any_channels(name: str, channels: int) -> None:
    cipher, plain = make(name), photos(2, 9, 6, channels=channels)
    keys = keystream(cipher, [0, 1])
    found = cipher.decrypt(cipher.encrypt(plain, keys), keys, shape=(channels, 9, 6))
    assert torch.equal(found, plain)


def test_decrypt_without_a_shape_assumes_no_padding() -> None:
    for name in ("etc", "etc-gray", "le"):
        cipher, plain = make(name), photos(1, 32, 16)
        keys = keystream(cipher, [0])
        assert restored(cipher, plain, cipher.decrypt(cipher.encrypt(plain, keys), keys))
