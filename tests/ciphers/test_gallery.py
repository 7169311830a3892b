"""The gallery: what it measures and what it draws."""

import numpy as np
import pytest
import torch

from fedenc.ciphers import gallery, make, names
from fedenc.errors import CipherError
from fedenc.images import sheets
from fedenc.keys import KeyRing

RING = KeyRing(bytes(range(32)))


def smooth(height: int, width: int) -> torch.Tensor:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(rows / a + columns / b) for a, b in ((9, 7), (5, 11), (8, 8))]
    return torch.from_numpy(np.stack(waves).astype(np.uint8))


def test_ssim_of_known_pairs() -> None:
    plain = smooth(40, 50)
    assert gallery.ssim(plain, plain) == pytest.approx(1)
    assert gallery.ssim(plain, 255 - plain) < 0
    padded = torch.nn.functional.pad(plain, (0, 6, 0, 8), value=99)
    assert gallery.ssim(plain, padded) == pytest.approx(1)
    assert gallery.ssim(plain, plain[:1]) is None
    assert gallery.ssim(plain[:, :10], plain[:, :10]) is None


def test_measure_compares_key_policies() -> None:
    twins = [smooth(48, 48)] * 2
    row = gallery.measure(twins, RING, make("pixel"))
    assert torch.equal(*row.encrypted["same"])
    assert not torch.equal(*row.encrypted["image"])
    assert all(-0.2 < value < 0.3 for value in row.ssim["same"] + row.ssim["image"])
    assert gallery.measure(twins, RING, make("none")).ssim["image"] == pytest.approx([1, 1])
    assert gallery.measure(twins, RING, make("etc-gray")).ssim["same"] == [None, None]


def test_draw_shows_images_where_they_belong() -> None:
    plain = [smooth(64, 64), smooth(64, 32)]
    rows = [gallery.measure(plain, RING, make(name)) for name in ("none", "scramble")]
    sheet = sheets.tensor(gallery.draw(plain, rows, cell=64))
    top = 2 * sheets.LINE + sheets.GAP  # "independent keys" takes two lines at this width
    assert torch.equal(sheet[:, top : top + 64, 110 : 110 + 64], plain[0])
    x, y = 110 + 3 * 72, top + 2 * 90  # second image, independent keys, second cipher
    assert torch.equal(sheet[:, y : y + 64, x : x + 32], rows[1].encrypted["image"][1])


def test_shrink_keeps_proportions() -> None:
    assert gallery.shrink(smooth(300, 600), 128).shape == (3, 64, 128)
    small = smooth(20, 30)
    assert gallery.shrink(small, 128) is small


def test_built() -> None:
    assert [c.name for c in gallery.built()] == [name for name in names() if name != "none"]
    assert [c.name for c in gallery.built(["none", "le"])] == ["none", "le"]
    with pytest.raises(CipherError, match="there is no cipher 'x'"):
        gallery.built(["x"])
