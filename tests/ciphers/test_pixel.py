"""The pixel cipher: the properties of NP and CS, the published table, and golden bytes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from fedenc.ciphers import functional, make
from fedenc.errors import CipherError
from fedenc.keys import KeyRing, Policy

NONCE = bytes(16)
RING = KeyRing(bytes(range(32)))
# Table 1 of the paper: the sources of output R, G and B
TABLE_1 = ("RGB", "RBG", "GRB", "GBR", "BRG", "BGR")


def photos(n: int, height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, (n, channels, height, width))
    return torch.from_numpy(values.astype(np.uint8))


def keystream(n: int, policy: Policy = "image", first: int = 0, ring: KeyRing = RING):
    ids = np.arange(first, first + n)
    return ring.keystream(method="pixel", policy=policy, purpose="train", nonce=NONCE, ids=ids)


def encrypt(images: Tensor, policy: Policy = "image", first: int = 0, **params: bool) -> Tensor:
    return make("pixel", **params).encrypt(images, keystream(len(images), policy, first))


def distance(images: Tensor) -> Tensor:
    """|2p − 255| without rounding, int16."""
    return (2 * images.to(torch.int16) - 255).abs()


def reference_shuffle(pixel: list[int], code: int) -> list[int]:
    return [pixel["RGB".index(source)] for source in TABLE_1[code]]


@given(st.integers(0, 5), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_color_shuffle_is_table_1(code: int, red: int, green: int, blue: int) -> None:
    image = torch.tensor([red, green, blue], dtype=torch.uint8).reshape(1, 3, 1, 1)
    codes = torch.full((1, 1, 1), code, dtype=torch.uint8)
    shuffled = functional.color_shuffle(image, codes)
    assert shuffled.flatten().tolist() == reference_shuffle([red, green, blue], code)
    assert torch.equal(functional.color_unshuffle(shuffled, codes), image)
    again = functional.color_shuffle(shuffled, codes)
    if code in (0, 1, 2, 5):
        assert torch.equal(again, image)
    else:
        other = functional.color_shuffle(shuffled, 7 - codes)
        assert torch.equal(other, image)


def test_published_vector() -> None:
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).reshape(1, 3, 1, 1)
    flips = torch.tensor([255, 0, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    negated = functional.negative_positive(image, flips)
    assert negated.flatten().tolist() == [245, 20, 225]
    shuffled = functional.color_shuffle(negated, torch.full((1, 1, 1), 3, dtype=torch.uint8))
    assert shuffled.flatten().tolist() == [20, 225, 245]


@pytest.mark.parametrize("color_shuffle", [False, True])
def test_key_bytes_sit_where_documented(color_shuffle: bool) -> None:
    """An obvious per-pixel loop over the documented ranges of the raw keystream.

    No word is rejected here; that has tests of its own.
    """
    images = photos(3, 5, 7)
    raw = keystream(3).bytes(14 + 200)
    found = encrypt(images, color_shuffle=color_shuffle).numpy()
    for image, source, result in zip(images.numpy(), raw, found, strict=True):
        bits = [int(byte) >> i & 1 for byte in source[:14] for i in range(8)]
        words = np.frombuffer(source[14:].tobytes(), "<u4").tolist()
        fours = [word // (2**32 // 6**4) for word in words[:9]]
        twos = [four // 36 for four in fours] + [four % 36 for four in fours]
        codes = [two // 6 for two in twos] + [two % 6 for two in twos]
        for y in range(5):
            for x in range(7):
                at = y * 7 + x
                pixel = [
                    255 - int(image[c, y, x]) if bits[c * 35 + at] else int(image[c, y, x])
                    for c in range(3)
                ]
                if color_shuffle:
                    pixel = reference_shuffle(pixel, codes[at])
                assert result[:, y, x].tolist() == pixel


@given(
    st.integers(0, 4),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["same", "client", "image"]),
    st.booleans(),
)
def test_round_trip(n: int, height: int, width: int, policy: Policy, color_shuffle: bool) -> None:
    cipher, images = make("pixel", color_shuffle=color_shuffle), photos(n, height, width)
    keys = keystream(n, policy)
    assert torch.equal(cipher.decrypt(cipher.encrypt(images, keys), keys), images)


def test_visible_invariants() -> None:
    images = photos(20, 9, 11)
    plain = distance(images)
    assert torch.equal(distance(encrypt(images, color_shuffle=False)), plain)
    shuffled = distance(encrypt(images))
    assert not torch.equal(shuffled, plain)
    assert torch.equal(shuffled.sort(dim=1).values, plain.sort(dim=1).values)


def test_histograms_fold_to_the_same_and_become_symmetric() -> None:
    images = (photos(50, 32, 32) // 4).to(torch.uint8)  # dark images
    found = encrypt(images)
    before = torch.bincount(images.flatten().long(), minlength=256)
    after = torch.bincount(found.flatten().long(), minlength=256)
    assert torch.equal(before + before.flip(0), after + after.flip(0))
    total = (after + after.flip(0))[:64].double()
    assert stats.chi2.sf(float(((2 * after[:64] - total) ** 2 / total).sum()), 64) > 1e-6
    for channel in range(3):
        planes = [
            x[:, channel].flatten().long() for x in (images, encrypt(images, color_shuffle=False))
        ]
        first, second = (torch.bincount(plane, minlength=256) for plane in planes)
        assert torch.equal(first + first.flip(0), second + second.flip(0))


def test_flips_commute_with_flipped_keys() -> None:
    images = photos(4, 6, 8)
    cipher = make("pixel")
    flips, codes = cipher.draw(keystream(4), 3, 6, 8)
    flipped = cipher.apply(images.flip(-1), (flips.flip(-1), codes.flip(-1)))
    assert torch.equal(flipped, cipher.apply(images, (flips, codes)).flip(-1))


def test_shuffling_and_negation_commute_with_shuffled_bits() -> None:
    images = photos(4, 6, 8)
    flips, codes = make("pixel").draw(keystream(4), 3, 6, 8)
    one = functional.color_shuffle(functional.negative_positive(images, flips), codes)
    other = functional.negative_positive(
        functional.color_shuffle(images, codes), functional.color_shuffle(flips, codes)
    )
    assert torch.equal(one, other)


def test_key_parts_are_uniform() -> None:
    flips, codes = make("pixel").draw(keystream(400), 3, 32, 32)
    assert stats.binomtest(int((flips == 255).sum()), flips.numel()).pvalue > 1e-6
    assert stats.chisquare(torch.bincount(codes.flatten().long(), minlength=6)).pvalue > 1e-6
    # every position too, over the images: 3072 + 1024 tests
    assert (abs(flips.double().mean(dim=0) / 255 - 0.5) < 6.5 * 0.5 / 20).all()
    assert (abs((codes == 3).double().mean(dim=0) - 1 / 6) < 6.5 * 0.373 / 20).all()


def test_same_key_reveals_differences_and_independent_keys_do_not() -> None:
    images = photos(2, 32, 32)
    for policy, revealed in (("same", True), ("client", True), ("image", False)):
        found = encrypt(images, policy, color_shuffle=False)
        assert torch.equal(found[0] ^ found[1], images[0] ^ images[1]) is revealed


@pytest.mark.parametrize("policy", ["same", "image"])
def test_slices_do_not_show(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photos(37, 16, 16)
    whole = encrypt(images, policy)
    monkeypatch.setattr("fedenc.ciphers.base._SLICE_BYTES", {"cpu": 5000})
    assert torch.equal(encrypt(images, policy), whole)
    monkeypatch.setattr("fedenc.ciphers.base._SLICE_BYTES", {"cpu": 1})
    assert torch.equal(encrypt(images, policy), whole)
    singles = [encrypt(images[i : i + 1], policy, first=i) for i in range(37)]
    assert torch.equal(torch.cat(singles), whole)


def test_encrypt_neither_moves_the_keystream_nor_changes_its_input() -> None:
    images, keys = photos(5, 8, 8), keystream(5)
    copy = images.clone()
    keys.bytes(9)
    first = make("pixel").encrypt(images, keys)
    assert torch.equal(make("pixel").encrypt(images, keys), first)
    assert torch.equal(images, copy)
    assert torch.equal(first, encrypt(images))


def test_gray_images_without_color_shuffle() -> None:
    images = photos(3, 5, 4, channels=1)
    found = encrypt(images, color_shuffle=False)
    assert torch.equal(distance(found), distance(images))
    with pytest.raises(CipherError, match=r"3 channels, found 1; convert .* color_shuffle=False"):
        encrypt(images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 4, 4), r"images is torch.float32 of shape \(2, 3, 4, 4\), expected"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "expected a torch.uint8 tensor N×C×H×W"),
        (np.zeros((2, 3, 4, 4), np.uint8), "images is ndarray, expected"),
        (torch.zeros(3, 3, 4, 4, dtype=torch.uint8), "for 2 images, images holds 3"),
    ],
)
def test_bad_input_ends_in_one_clear_line(images: Tensor, message: str) -> None:
    with pytest.raises(CipherError, match=message):
        make("pixel").encrypt(images, keystream(2))


def test_decrypt_checks_the_shape() -> None:
    images = photos(2, 4, 4)
    with pytest.raises(CipherError, match="encrypted images are 3×4×4, but images of shape 3×5×4"):
        make("pixel").decrypt(images, keystream(2), shape=(3, 5, 4))


def test_key_space() -> None:
    cipher = make("pixel")
    assert cipher.key_space_log2(3, 32, 32) == pytest.approx(1024 * np.log2(48))
    assert make("pixel", color_shuffle=False).key_space_log2(3, 32, 32) == 3072
    assert cipher.effective_bits(3, 32, 32) == 256
    assert cipher.effective_bits(3, 1, 1) == pytest.approx(np.log2(48))


def test_other_keys_give_other_images() -> None:
    images = photos(1, 16, 16)
    found = [encrypt(images, first=i).numpy().tobytes() for i in range(5)]
    assert len(set(found)) == 5
    assert all(a != b for a, b in pairwise(found))
