"""Sheets of labelled images: rows of images, a label for each row, a caption under each image."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fedenc.files import write_atomically

GAP, LINE, LABEL = 8, 18, 110  # pixels: between images, of a line of text, of the labels' column
_SIZE = 13  # of the text, in pixels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Row:
    """One row of a sheet. Text is limited to what Pillow's own font has: Latin letters.

    Attributes:
        label: text to the left of the row; may have several lines.
        images: uint8 (C, H, W) of any sizes, gray if C is 1; None leaves a place empty.
        captions: text under each image, as many as there are images.
    """

    label: str
    images: Sequence[Tensor | None]
    captions: Sequence[str]


def grid(rows: Sequence[Row], *, titles: Sequence[str] = (), cell: int = 128) -> Image.Image:
    """Lay out rows of images under each other.

    Args:
        rows: from the top.
        titles: of the columns, drawn at the top, in several lines if they are long.
        cell: pixels a side that an image is shown in. Smaller images show their pixels as squares.
    """
    step_x, step_y = cell + GAP, cell + LINE + GAP
    columns = max((len(row.images) for row in rows), default=0)
    font = ImageFont.load_default(_SIZE)
    headings = ["\n".join(_wrapped(title, cell, font)) for title in titles]
    top = LINE * max((text.count("\n") + 1 for text in headings), default=1) + GAP
    size = (LABEL + columns * step_x + GAP, top + len(rows) * step_y)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(headings):
        pen.text((LABEL + column * step_x, GAP // 2), text, "black", font)
    for number, row in enumerate(rows):
        y = top + number * step_y
        pen.text((GAP, y), row.label, "black", font)
        for column, (image, caption) in enumerate(zip(row.images, row.captions, strict=True)):
            x = LABEL + column * step_x
            if image is not None:
                sheet.paste(_fit(image, cell), (x, y))
            pen.text((x, y + cell + 1), caption, "black", font)
    return sheet


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """Lines of whole words that are at most ``width`` pixels wide, where no word alone is wider."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def picture(image: Tensor) -> Image.Image:
    """uint8 (C, H, W) as an RGB picture: gray if C is 1, otherwise its first three channels."""
    pixels = image.permute(1, 2, 0).cpu().contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels[..., :3]).convert("RGB")


def tensor(picture: Image.Image) -> Tensor:
    """An RGB picture as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def save(sheet: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_atomically(path, content.getvalue())


def _fit(image: Tensor, cell: int) -> Image.Image:
    """Scale into a square cell: pixels become squares when enlarged, and means when reduced."""
    _, height, width = image.shape
    scale = cell / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return picture(image).resize(size, how)
