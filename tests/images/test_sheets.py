"""Sheets of labelled images."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from fedenc.images import sheets
from fedenc.images.sheets import GAP, LABEL, LINE, Row


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def place(sheet: Tensor, row: int, column: int, cell: int) -> Tensor:
    y, x = LINE + GAP + row * (cell + LINE + GAP), LABEL + column * (cell + GAP)
    return sheet[:, y : y + cell, x : x + cell]


def test_every_image_stands_in_its_row_and_column() -> None:
    images = noise(5, 3, 16, 16)
    rows = [
        Row("a", images[:3], ["", "", ""]),
        Row("b\nc", [None, images[3], images[4, :1]], ["x", "y", "z"]),
    ]
    sheet = sheets.tensor(sheets.grid(rows, titles=["one", "two"], cell=16))
    for column in range(3):
        assert torch.equal(place(sheet, 0, column, 16), images[column])
    assert (place(sheet, 1, 0, 16) == 255).all()
    assert torch.equal(place(sheet, 1, 1, 16), images[3])
    assert torch.equal(place(sheet, 1, 2, 16), images[4, :1].expand(3, -1, -1))
    blank = sheets.tensor(sheets.grid([Row("", r.images, [""] * 3) for r in rows], cell=16))
    above, left = slice(0, LINE), slice(0, LABEL)
    assert (blank[:, above] == 255).all()
    assert (sheet[:, above] < 128).any()
    assert (blank[:, :, left] == 255).all()
    assert (sheet[:, :, left] < 128).any()


@pytest.mark.parametrize(("side", "cell"), [(8, 32), (64, 16)])
def test_images_fill_their_cell(side: int, cell: int) -> None:
    """Pixels stay squares when enlarged, and are averaged when reduced."""
    image = noise(3, side, side)
    shown = place(sheets.tensor(sheets.grid([Row("", [image], [""])], cell=cell)), 0, 0, cell)
    if cell > side:
        times = cell // side
        expected = image.repeat_interleave(times, 1).repeat_interleave(times, 2)
    else:
        times = side // cell
        expected = image.double().unfold(1, times, times).unfold(2, times, times).mean((3, 4))
    assert (shown.double() - expected).abs().max() <= 1


@pytest.mark.parametrize("cell", [96, 128])
def test_headings_keep_to_their_columns(cell: int) -> None:
    rows = [Row("", [noise(3, 8, 8)] * 4, [""] * 4)]
    titles = ["same key", "independent keys"] * 2
    sheet = sheets.tensor(sheets.grid(rows, titles=titles, cell=cell))
    blank = sheets.tensor(sheets.grid(rows, titles=["", ""] * 2, cell=cell))
    head = sheet[:, : sheet.shape[1] - blank.shape[1] + LINE + GAP]
    for column in range(4):
        start = LABEL + column * (cell + GAP)
        assert (head[:, :, start : start + cell] < 128).any()
        assert (head[:, :, start + cell : start + cell + GAP] == 255).all()


def test_captions_belong_to_images() -> None:
    with pytest.raises(ValueError, match="shorter"):
        sheets.grid([Row("", [noise(3, 8, 8)] * 2, ["one"])])


def test_saved_sheets_are_read_back(tmp_path: Path) -> None:
    sheet = sheets.grid([Row("a", list(noise(2, 3, 8, 8)), ["b", "c"])])
    sheets.save(sheet, tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as found:
        assert torch.equal(sheets.tensor(found), sheets.tensor(sheet))
