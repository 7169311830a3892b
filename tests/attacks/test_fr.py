"""The published attack, beside loops written after its description."""

from itertools import permutations, product

import pytest
import torch
from torch import Tensor
from victims import attacked, victims

from fedenc import ciphers
from fedenc.attacks import make
from fedenc.attacks.base import Method
from fedenc.attacks.fr import AdvancedFR, BasicFR, decode
from fedenc.attacks.recovery import COLOR_ORDERS
from fedenc.errors import AttackError


def by_loops(encrypted: Tensor, first: Tensor, both: bool) -> Tensor:
    """One image (3, H, W): all 48 forms of a pixel in turn, the last order and the first flip of
    those that are nearest to the reference."""
    found = torch.zeros_like(encrypted)
    found[:, 0, 0] = first
    for row in range(encrypted.shape[1]):
        for column in range(encrypted.shape[2]):
            if (row, column) == (0, 0):
                continue
            near = found[:, row - 1, column] if row else found[:, row, column - 1]
            reference = [float(v) for v in near]
            if both and row and column:
                left = found[:, row, column - 1]
                reference = [(a + float(b)) / 2 for a, b in zip(reference, left, strict=True)]
            value = encrypted[:, row, column].tolist()
            least, chosen = float("inf"), [0, 0, 0]
            for order in permutations(range(3)):
                forms = [
                    [form(value[s], flip) for s, flip in zip(order, flips, strict=True)]
                    for flips in product((0, 1), repeat=3)
                ]
                costs = [
                    sum(abs(v - r) for v, r in zip(one, reference, strict=True)) for one in forms
                ]
                if min(costs) <= least:
                    least = min(costs)
                    chosen = forms[costs.index(least)]
            found[:, row, column] = torch.tensor(chosen, dtype=torch.uint8)
    return found


def form(value: int, flip: int) -> int:
    return 255 - value if flip else value


@pytest.mark.parametrize("reference", ["published", "neighbours"])
def test_decoding_equals_loops(reference: str) -> None:
    generator = torch.Generator().manual_seed(1)
    encrypted = torch.randint(256, (3, 3, 5, 6), generator=generator).byte()
    encrypted[:, :, 2] = encrypted[:, :1, 2]  # ties
    colours = torch.randint(256, (3, 3), generator=generator).byte()
    both = reference == "neighbours"
    found = decode(encrypted, colours, COLOR_ORDERS, both=both)
    for image, colour, result in zip(encrypted, colours, found, strict=True):
        assert torch.equal(result, by_loops(image, colour, both))


@pytest.mark.parametrize("reference", ["published", "neighbours"])
@pytest.mark.parametrize("color_shuffle", [True, False])
def test_smooth_images_are_decoded(reference: str, color_shuffle: bool) -> None:
    """Where neighbours are near and colours far apart, the nearest form is the true one."""
    target = victims("pixel", "image", 12, color_shuffle=color_shuffle)
    down, right = torch.arange(32)[:, None] // 2, torch.arange(32) // 2
    plain = torch.stack((20 + down + right, 60 + 0 * down + right, 200 + down + 0 * right))
    encrypted = target.method.encrypt_afresh(plain[None].byte().expand(4, -1, -1, -1))
    orders = COLOR_ORDERS if color_shuffle else torch.arange(3)[None]
    found = decode(
        encrypted, plain[None, :, 0, 0].byte().expand(4, -1), orders, both=reference == "neighbours"
    )
    assert (found == plain.byte()).float().mean() > 0.9


@pytest.mark.parametrize("reference", ["published", "neighbours"])
def test_it_uses_the_first_colour_alone(reference: str) -> None:
    target = victims("pixel", "image", 12)
    found = attacked(AdvancedFR(reference), target)
    assert found.images is not None
    assert found.images.dtype == torch.uint8
    assert torch.equal(found.images[:, :, 0, 0], target.plain[:, :, 0, 0])
    assert not torch.equal(found.images, target.plain)


@pytest.mark.parametrize("cipher", ["pixel", "le", "etc-gray", "logistic-rc4"])
def test_basic_folds_every_byte(cipher: str) -> None:
    target = victims(cipher, "image", 12)
    found = attacked(BasicFR(), target)
    assert found.images is not None
    assert found.images.shape == target.plain.shape
    assert found.images.max() < 128
    if cipher == "pixel":
        values = target.uploads.images.long()
        assert torch.equal(found.images.long(), torch.minimum(values, 255 - values))


def test_bad_input() -> None:
    with pytest.raises(AttackError, match="one of published, neighbours"):
        make("fr-advanced", reference="below")
    le = Method("le", ciphers.make("le"), "same", (3, 8, 8))
    assert AdvancedFR().unsuitable(le) == "is for pixel-based encryption"
    assert BasicFR().unsuitable(le) is None
