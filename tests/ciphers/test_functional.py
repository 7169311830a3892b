"""Every pure operation against an obvious, slow reference in plain Python or NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from fedenc.ciphers import functional as F

TABLE_1 = ("RGB", "RBG", "GRB", "GBR", "BRG", "BGR")


def uint8(*shape: int, seed: int = 0, high: int = 256) -> Tensor:
    values = np.random.default_rng(seed).integers(0, high, shape)
    return torch.from_numpy(values.astype(np.uint8))


def orders(rows: int, size: int, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([generator.permutation(size) for _ in range(rows)]))


sizes = st.integers(1, 5)
seeds = st.integers(0, 2**31)
keys = st.booleans()  # one key for all images, or one each


@given(sizes, sizes, sizes, keys, seeds)
def test_negative_positive(n: int, height: int, width: int, shared: bool, seed: int) -> None:
    images = uint8(n, 3, height, width, seed=seed)
    flips = 255 * uint8(1 if shared else n, 3, height, width, seed=seed + 1, high=2)
    found = F.negative_positive(images, flips)
    for at in np.ndindex(*images.shape):
        flip = int(flips[0 if shared else at[0], *at[1:]])
        assert int(found[at]) == (255 - int(images[at]) if flip else int(images[at]))
    assert torch.equal(F.negative_positive(found, flips), images)


@given(sizes, sizes, sizes, keys, seeds)
def test_color_shuffle(n: int, height: int, width: int, shared: bool, seed: int) -> None:
    images = uint8(n, 3, height, width, seed=seed)
    codes = uint8(1 if shared else n, height, width, seed=seed + 1, high=6)
    found = F.color_shuffle(images, codes)
    for i, y, x in np.ndindex(n, height, width):
        sources = TABLE_1[int(codes[0 if shared else i, y, x])]
        expected = [int(images[i, "RGB".index(source), y, x]) for source in sources]
        assert found[i, :, y, x].tolist() == expected
    assert torch.equal(F.color_unshuffle(found, codes), images)


@given(sizes, sizes, sizes, keys, seeds)
def test_shuffle_block_colors(n: int, count: int, size: int, shared: bool, seed: int) -> None:
    blocks = uint8(n, count, 3, size, size, seed=seed)
    codes = uint8(1 if shared else n, count, seed=seed + 1, high=6)
    found = F.shuffle_block_colors(blocks, codes)
    for i, j in np.ndindex(n, count):
        sources = TABLE_1[int(codes[0 if shared else i, j])]
        for channel, source in enumerate(sources):
            assert torch.equal(found[i, j, channel], blocks[i, j, "RGB".index(source)])
    assert torch.equal(F.unshuffle_block_colors(found, codes), blocks)


def test_both_ways_to_exchange_channels_agree() -> None:
    """Processors exchange by logic, GPUs by selection."""
    images, codes = uint8(6, 3, 50, 7), uint8(6, 50, 7, seed=1, high=6)
    for order in (((0, 1), (0, 2), (1, 2)), ((1, 2), (0, 2), (0, 1))):
        selected, combined = images.clone(), images.clone()
        F._exchange_select(selected, codes, order)
        F._exchange_logic(combined, codes, order)
        assert torch.equal(selected, combined)
        assert not torch.equal(selected, images)


@given(sizes, sizes, st.integers(0, 6), st.integers(0, 6))
def test_pad_edges(height: int, width: int, more_rows: int, more_columns: int) -> None:
    images = uint8(2, 3, height, width)
    found = F.pad_edges(images, height + more_rows, width + more_columns)
    pads = ((0, 0), (0, 0), (0, more_rows), (0, more_columns))
    assert np.array_equal(found.numpy(), np.pad(images.numpy(), pads, mode="edge"))


@given(sizes, st.sampled_from([1, 3]), sizes, sizes, st.sampled_from([1, 2, 4, 8, 16]))
def test_split_and_merge_blocks(n: int, channels: int, rows: int, columns: int, size: int) -> None:
    images = uint8(n, channels, rows * size, columns * size)
    blocks = F.split_blocks(images, size)
    assert blocks.shape == (n, rows * columns, channels, size, size)
    for row in range(rows):
        for column in range(columns):
            y, x = row * size, column * size
            cut = images[:, :, y : y + size, x : x + size]
            assert torch.equal(blocks[:, row * columns + column], cut)
    assert torch.equal(F.merge_blocks(blocks, *images.shape[2:]), images)


def test_blocks_of_views_that_no_wide_integer_can_see() -> None:
    storage = uint8(2 * 3 * 8 * 8 + 3)
    shifted = storage[3:].reshape(2, 3, 8, 8)
    strided = uint8(2, 3, 8, 16)[..., ::2]
    for images in (shifted, strided, uint8(2, 8, 8, 3).movedim(3, 1)):
        blocks = F.split_blocks(images, 4)
        assert torch.equal(blocks, F.split_blocks(images.clone().contiguous(), 4))
        assert torch.equal(F.merge_blocks(blocks, 8, 8), images)


@given(st.integers(0, 4), st.integers(1, 9), keys, seeds)
def test_permute_blocks(n: int, count: int, shared: bool, seed: int) -> None:
    blocks = uint8(n, count, 3, 4, 4, seed=seed)
    order = orders(1 if shared or n == 0 else n, count, seed)
    found = F.permute_blocks(blocks, order)
    for i in range(n):
        for j in range(count):
            assert torch.equal(found[i, j], blocks[i, order[0 if shared else i, j]])
    assert torch.equal(F.unpermute_blocks(found, order), blocks)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_turn_blocks(size: int) -> None:
    blocks = uint8(3, 8, 2, size, size)
    for codes in (torch.arange(8).repeat(3, 1), torch.arange(8)[None], orders(3, 8)):
        found = F.turn_blocks(blocks, codes)
        for i, j, c in np.ndindex(3, 8, 2):
            code = int(codes[min(i, len(codes) - 1), j])
            block = blocks[i, j, c].numpy()
            block = np.fliplr(block) if code & 1 else block
            block = np.flipud(block) if code & 2 else block
            block = block.T if code & 4 else block
            assert np.array_equal(found[i, j, c].numpy(), block)
        assert torch.equal(F.unturn_blocks(found, codes), blocks)


def test_turns_are_the_eight_symmetries_of_the_square() -> None:
    block = np.arange(16, dtype=np.uint8).reshape(4, 4)
    turned = F.turn_blocks(torch.from_numpy(block).expand(1, 8, 1, 4, 4), torch.arange(8)[None])
    expected = {np.rot90(b, k).tobytes() for b in (block, np.fliplr(block)) for k in range(4)}
    assert {t.numpy().tobytes() for t in turned[0]} == expected


@given(sizes, sizes, st.sampled_from([1, 3, 4]), seeds)
def test_split_and_merge_nibbles(n: int, count: int, channels: int, seed: int) -> None:
    blocks = uint8(n, count, channels, 4, 4, seed=seed)
    nibbles = F.split_nibbles(blocks)
    half = 16 * channels
    for i, j, c, y, x in np.ndindex(*blocks.shape):
        at, value = (y * 4 + x) * channels + c, int(blocks[i, j, c, y, x])
        assert (int(nibbles[i, j, at]), int(nibbles[i, j, half + at])) == (value % 16, value // 16)
    assert torch.equal(F.merge_nibbles(nibbles, channels, 4), blocks)


@given(st.integers(1, 3), st.integers(1, 3), keys, keys, seeds)
def test_scramble_nibbles(n: int, count: int, one_key: bool, one_block: bool, seed: int) -> None:
    nibbles = uint8(n, count, 10, seed=seed, high=16)
    rows, columns = 1 if one_key else n, 1 if one_block else count
    order = orders(rows * columns, 10, seed).reshape(rows, columns, 10)
    flips = uint8(rows, columns, 10, seed=seed, high=2)
    found = F.scramble_nibbles(nibbles, order, flips)
    for i, j, position in np.ndindex(n, count, 10):
        at = (min(i, rows - 1), min(j, columns - 1))
        source = int(order[(*at, position)])
        value = int(nibbles[i, j, source])
        assert int(found[i, j, position]) == (15 - value if flips[(*at, source)] else value)
    assert torch.equal(F.unscramble_nibbles(found, order, flips), nibbles)


@given(sizes, sizes, sizes, keys, seeds)
def test_permute_pixels(n: int, height: int, width: int, shared: bool, seed: int) -> None:
    images = uint8(n, 3, height, width, seed=seed)
    order = orders(1 if shared else n, height * width, seed)
    found = F.permute_pixels(images, order)
    for i, c, y, x in np.ndindex(*images.shape):
        source = int(order[0 if shared else i, y * width + x])
        assert found[i, c, y, x] == images[i, c, source // width, source % width]
    assert torch.equal(F.unpermute_pixels(found, order), images)


@given(st.integers(1, 5), st.integers(0, 20), seeds)
def test_invert_permutation(rows: int, size: int, seed: int) -> None:
    order = orders(rows, size, seed)
    inverse = F.invert_permutation(order)
    assert torch.equal(order.gather(1, inverse), torch.arange(size).expand(rows, size))


def colors() -> Tensor:
    """Every fifth value of each channel and the extremes: (1, 3, H, W)."""
    steps = torch.tensor([*range(0, 256, 5), 1, 2, 127, 128, 254], dtype=torch.uint8)
    return torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, -1, 1)


def test_ycbcr_agrees_with_pillow() -> None:
    plain = colors()
    found = F.rgb_to_ycbcr(plain)
    image = Image.fromarray(plain[0].permute(1, 2, 0).contiguous().numpy())
    expected = torch.from_numpy(np.array(image.convert("YCbCr"))).permute(2, 0, 1)
    assert int((found[0].int() - expected.int()).abs().max()) <= 1
    real = plain[0].double()
    luma = 0.299 * real[0] + 0.587 * real[1] + 0.114 * real[2]
    blueness, redness = 128 + (real[2] - luma) / 1.772, 128 + (real[0] - luma) / 1.402
    exact = torch.stack((luma, blueness, redness))
    assert float((found[0] - exact).abs().max()) <= 0.51


def test_ycbcr_comes_back_within_two() -> None:
    plain = colors()
    error = (F.ycbcr_to_rgb(F.rgb_to_ycbcr(plain)).int() - plain.int()).abs()
    assert 0 < int(error.max()) <= 2


@given(seeds)
def test_operations_leave_their_input_alone(seed: int) -> None:
    images = uint8(2, 3, 8, 8, seed=seed)
    copy = images.clone()
    codes, flips = uint8(2, 8, 8, high=6), 255 * uint8(2, 3, 8, 8, high=2)
    F.color_shuffle(images, codes)
    F.color_unshuffle(images, codes)
    F.negative_positive(images, flips)
    F.permute_pixels(images, orders(2, 64))
    F.merge_blocks(F.turn_blocks(F.split_blocks(images, 4), torch.ones(2, 4)), 8, 8)
    assert torch.equal(images, copy)
