"""One decoder for data sets and for files: the same picture everywhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedenc.errors import DataError
from fedenc.images import lossless
from fedenc.images.decode import decode, open_image

ORIENTATION = 0x0112  # EXIF tag


def portrait(path: Path, turned: int) -> Path:
    """A 12×8 picture with a bright corner, stored with an EXIF orientation."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:4, :4] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = turned
    Image.fromarray(pixels).save(
        path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {})
    )
    return path


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_data_sets_and_files_see_the_same_upright_picture(
    tmp_path: Path, suffix: str, turned: int
) -> None:
    path = portrait(tmp_path / f"held{suffix}", turned)
    as_file, mode = lossless.read(path)
    as_data = torch.from_numpy(decode(path, "it").transpose(2, 0, 1).copy())
    assert mode == "RGB"
    assert torch.equal(as_file, as_data)
    assert tuple(as_file.shape) == ((3, 12, 8) if turned >= 5 else (3, 8, 12))
    assert torch.equal(
        as_data, torch.from_numpy(decode(path.read_bytes(), "it").transpose(2, 0, 1).copy())
    )
    corners = as_file.float().mean(0)[[0, 0, -1, -1], [0, -1, 0, -1]]
    # where the bright corner lies after turning: top left, top right, bottom right, bottom left
    bright = {1: 0, 2: 1, 3: 3, 4: 2, 5: 0, 6: 1, 7: 3, 8: 2}[turned]
    assert int(corners.argmax()) == bright


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"0" * 40])
def test_what_is_no_picture_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"cannot decode it: .*; expected an 8-bit image"):
        open_image(content, "it")
    with pytest.raises(DataError, match="gone does not exist"):
        open_image(tmp_path / "gone", "gone")
