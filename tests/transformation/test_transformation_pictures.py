"""The picture of plain and protected images."""

import pytest
import torch

from fedenc.errors import DataError
from fedenc.images import metrics, sheets
from fedenc.transformation.pictures import compare


def test_a_row_for_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    plain = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=generator)
    inverted, equal = 255 - plain, plain.clone()
    drawn: list[sheets.Row] = []
    grid = sheets.grid

    def remember(rows: list[sheets.Row], *, cell: int) -> object:
        drawn.extend(rows)
        return grid(rows, cell=cell)

    monkeypatch.setattr(sheets, "grid", remember)
    protected = [("alpha 0", equal), ("alpha 0.01", inverted)]
    sheet = sheets.tensor(compare(plain, protected, cell=16))
    ssim = metrics.ssim(plain, inverted, "uniform7")
    assert [row.label.split("\n")[0] for row in drawn] == ["plain", "alpha 0", "alpha 0.01"]
    assert drawn[1].captions == ["1.000"] * 3
    assert drawn[2].captions == [f"{value:.3f}" for value in ssim.tolist()]
    assert f"{ssim.mean():.3f}" in drawn[2].label
    for number, images in enumerate((plain, equal, inverted)):
        y = sheets.LINE + sheets.GAP + number * (16 + sheets.LINE + sheets.GAP)
        assert torch.equal(sheet[:, y : y + 16, sheets.LABEL :][:, :, :16], images[0])


def test_images_that_differ_in_shape() -> None:
    plain = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(DataError, match="expected equal shapes"):
        compare(plain, [("x", plain[:1])])
