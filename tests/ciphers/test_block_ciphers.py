"""Properties of the block-based methods: what they keep, what they hide, what was published."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from fedenc.ciphers import Cipher, functional, make
from fedenc.ciphers.le import published_flips
from fedenc.keys import KeyRing, Policy

RING = KeyRing(bytes(range(32)), 1)


def photos(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(0, 256, (n, 3, height, width))
    return torch.from_numpy(values.astype(np.uint8))


def keystream(cipher: Cipher, n: int, policy: Policy = "image", seed: int = 0):
    return RING.keystream(
        method=cipher.name,
        policy=policy,
        purpose="train",
        nonce=seed.to_bytes(16, "big"),
        ids=np.arange(n),
    )


def blocks_of(image: Tensor, size: int) -> list[np.ndarray]:
    """(C, H, W) to arrays (C, size, size), by slicing."""
    _, height, width = image.shape
    return [
        image[:, y : y + size, x : x + size].numpy()
        for y in range(0, height, size)
        for x in range(0, width, size)
    ]


def orbit(block: np.ndarray, colors: bool) -> list[bytes]:
    """All that turning, negating and reordering the channels of a block can make of it."""
    forms = []
    for mirrored in (block, block[:, :, ::-1]):
        for turns in range(4):
            turned = np.rot90(mirrored, turns, axes=(1, 2))
            for signed in (turned, 255 - turned):
                orders = permutations(range(len(block))) if colors else [range(len(block))]
                forms += [signed[list(order)].tobytes() for order in orders]
    return forms


@given(st.sampled_from([4, 8]), st.booleans(), st.integers(0, 2**31))
def test_etc_keeps_the_multiset_of_blocks_up_to_symmetry(
    size: int, colors: bool, seed: int
) -> None:
    cipher = make("etc", block_size=size, color_shuffle=colors)
    plain = photos(1, 16, 24, seed)
    found = cipher.encrypt(plain, keystream(cipher, 1, seed=seed))
    before = Counter(min(orbit(block, colors)) for block in blocks_of(plain[0], size))
    after = Counter(min(orbit(block, colors)) for block in blocks_of(found[0], size))
    assert before == after


def test_etc_steps_follow_the_documented_draws() -> None:
    """Decode the key by hand and rebuild the ciphertext block by block."""
    cipher, plain = make("etc", block_size=4), photos(3, 8, 12)
    found = cipher.encrypt(plain, keystream(cipher, 3))
    keys = keystream(cipher, 3)
    order, turns = keys.permutations(6, 1)[:, 0], keys.integers(8, 6)
    flips, codes = keys.bits(6), keys.integers(6, 6)
    for i in range(3):
        source = blocks_of(plain[i], 4)
        for j, result in enumerate(blocks_of(found[i], 4)):
            block, turn = source[order[i, j]], turns[i, j]
            block = block[:, :, ::-1] if turn & 1 else block
            block = block[:, ::-1] if turn & 2 else block
            block = block.transpose(0, 2, 1) if turn & 4 else block
            block = 255 - block if flips[i, j] else block
            table = ("RGB", "RBG", "GRB", "GBR", "BRG", "BGR")[codes[i, j]]
            assert np.array_equal(result, block[["RGB".index(c) for c in table]])


def test_etc_leaves_correlation_inside_blocks() -> None:
    """Turning and negating a block does not change the size of its neighbours' differences."""
    cipher, plain = make("etc", block_size=8), photos(5, 32, 32)
    found = cipher.encrypt(plain, keystream(cipher, 5))

    def roughness(images: Tensor) -> int:
        blocks = functional.split_blocks(images, 8).int()
        return int(blocks.diff(dim=-1).abs().sum() + blocks.diff(dim=-2).abs().sum())

    assert roughness(found) == roughness(plain)


def test_identity_keys_are_the_identity() -> None:
    plain = photos(2, 16, 16)
    zeros = torch.zeros(1, 16, dtype=torch.uint8)
    order = torch.arange(16)[None]
    assert torch.equal(make("etc").apply(plain, (order, zeros, zeros, zeros)), plain)
    assert torch.equal(make("scramble", block_size=4).apply(plain, (order,)), plain)
    straight = torch.arange(96).reshape(1, 1, 96)
    unflipped = torch.zeros(1, 1, 96, dtype=torch.uint8)
    assert torch.equal(make("le").apply(plain, (straight, unflipped)), plain)
    everywhere = straight.expand(1, 16, 96), unflipped.expand(1, 16, 96)
    assert torch.equal(make("ele").apply(plain, (*everywhere, order)), plain)


@pytest.mark.parametrize("name", ["etc", "scramble", "ele", "etc-gray"])
def test_block_orders_are_uniform(name: str) -> None:
    cipher = make(name)
    parts = cipher.draw(keystream(cipher, 600), 3, 16, 16)
    order = parts[2] if name == "ele" else parts[0]
    first = torch.bincount(order[:, 0], minlength=order.shape[1])
    assert stats.chisquare(first).pvalue > 1e-6
    if name.startswith("etc"):
        assert stats.chisquare(torch.bincount(parts[1].flatten().int())).pvalue > 1e-6


@given(st.integers(0, 2**31))
def test_scramble_moves_whole_blocks(seed: int) -> None:
    cipher, plain = make("scramble"), photos(2, 32, 40, seed)
    found = cipher.encrypt(plain, keystream(cipher, 2, seed=seed))
    for before, after in zip(plain, found, strict=True):
        assert Counter(b.tobytes() for b in blocks_of(before, 8)) == Counter(
            b.tobytes() for b in blocks_of(after, 8)
        )


def test_scramble_mirrors_with_another_order() -> None:
    cipher, plain = make("scramble"), photos(1, 16, 24)
    order = torch.tensor([[4, 2, 0, 5, 1, 3]])
    mirror = torch.tensor([2, 1, 0, 5, 4, 3])  # the places of blocks in a mirrored image
    mirrored = mirror[order[:, mirror]]
    expected = cipher.apply(plain, (order,)).flip(-1)
    assert torch.equal(cipher.apply(plain.flip(-1), (mirrored,)), expected)


def test_le_treats_every_block_alike_and_ele_does_not() -> None:
    block = photos(1, 4, 4)
    tiled = block.repeat(1, 1, 4, 5)
    for name, alike in (("le", True), ("ele", False)):
        cipher = make(name)
        found = blocks_of(cipher.encrypt(tiled, keystream(cipher, 1))[0], 4)
        assert (len({b.tobytes() for b in found}) == 1) is alike


@given(st.sampled_from(["", "icce2018"]), st.integers(0, 2**31))
def test_le_keeps_folded_half_bytes_of_every_block(compat: str, seed: int) -> None:
    cipher, plain = make("le", compat=compat), photos(1, 8, 8, seed)
    found = cipher.encrypt(plain, keystream(cipher, 1, seed=seed))

    def folded(block: np.ndarray) -> list[int]:
        halves = np.concatenate((block & 15, block >> 4)).reshape(-1)
        return sorted(np.minimum(halves, 15 - halves).tolist())

    for before, after in zip(blocks_of(plain[0], 4), blocks_of(found[0], 4), strict=True):
        assert folded(before) == folded(after)


def test_le_reproduces_the_published_vector() -> None:
    """Block bytes 5·i in the order (row, column, channel), permutation 95 … 0."""
    flat = torch.arange(48).mul(5).to(torch.uint8)
    plain = flat.reshape(1, 4, 4, 3).permute(0, 3, 1, 2)
    order = np.arange(95, -1, -1)[None, None]
    key = torch.from_numpy(order.copy()), torch.from_numpy(published_flips(order))
    found = make("le", compat="icce2018").apply(plain, key).permute(0, 2, 3, 1).flatten()
    assert found[:6].tolist() == [177, 145, 225, 50, 130, 210]
    assert found[-3:].tolist() == [95, 175, 240]


@given(st.integers(0, 2**31))
def test_published_flips_are_a_reversal_before_and_after(seed: int) -> None:
    generator = np.random.default_rng(seed)
    order, values = generator.permutation(96), generator.integers(0, 16, 96)
    reversed_ = order > 48
    assert reversed_.sum() == 47
    first = np.where(reversed_, 15 - values, values)[order]
    expected = np.where(reversed_, 15 - first, first)
    flips = published_flips(order[None])[0]
    assert np.array_equal(np.where(flips, 15 - values, values)[order], expected)


def test_ele_scrambles_each_block_then_moves_it() -> None:
    cipher, plain = make("ele"), photos(2, 8, 8)
    found = cipher.encrypt(plain, keystream(cipher, 2))
    keys = keystream(cipher, 2)
    order, flips = keys.permutations(96, 4), keys.bits(4 * 96).reshape(2, 4, 96)
    places = keys.permutations(4, 1)[:, 0]
    for i in range(2):
        scrambled = []
        for j, block in enumerate(blocks_of(plain[i], 4)):
            flat = block.transpose(1, 2, 0).reshape(-1)
            halves = np.concatenate((flat & 15, flat >> 4))
            halves = np.where(flips[i, j], 15 - halves, halves)[order[i, j]]
            merged = halves[:48] + 16 * halves[48:]
            scrambled.append(merged.reshape(4, 4, 3).transpose(2, 0, 1))
        for j, block in enumerate(blocks_of(found[i], 4)):
            assert np.array_equal(block, scrambled[places[i, j]])


def test_gray_etc_is_a_scrambled_stack_of_ycbcr_planes() -> None:
    cipher, plain = make("etc-gray", block_size=8), photos(1, 16, 24)
    found = cipher.encrypt(plain, keystream(cipher, 1))
    assert found.shape == (1, 1, 48, 24)
    stack = functional.rgb_to_ycbcr(plain).reshape(1, 48, 24)
    before = Counter(min(orbit(block, False)) for block in blocks_of(stack, 8))
    assert before == Counter(min(orbit(block, False)) for block in blocks_of(found[0], 8))


def test_gray_etc_subsamples_chroma() -> None:
    cipher = make("etc-gray", block_size=4, subsampling="4:2:0")
    smooth = photos(1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    keys = keystream(cipher, 1)
    found = cipher.encrypt(smooth, keys)
    assert found.shape == (1, 1, 12, 8)
    assert int((cipher.decrypt(found, keys).int() - smooth.int()).abs().max()) <= 2
    rough = photos(1, 8, 8)
    plain = cipher.decrypt(cipher.encrypt(rough, keys), keys)
    luma = [functional.rgb_to_ycbcr(image)[:, 0].int() for image in (rough, plain)]
    assert plain.shape == rough.shape
    assert float((luma[0] - luma[1]).abs().double().mean()) < 12  # only clipping changes luma


@pytest.mark.parametrize("name", ["le", "etc", "scramble", "ele"])
def test_padding_repeats_edges(name: str) -> None:
    """Encrypting a padded image is encrypting the image padded by hand."""
    cipher, plain = make(name), photos(2, 9, 13)
    full = torch.from_numpy(np.pad(plain.numpy(), ((0, 0), (0, 0), (0, 7), (0, 3)), mode="edge"))
    multiple = 8 if name == "scramble" else 4
    rows = -(-9 // multiple) * multiple
    expected = cipher.encrypt(full[:, :, :rows], keystream(cipher, 2))
    assert torch.equal(cipher.encrypt(plain, keystream(cipher, 2)), expected)
