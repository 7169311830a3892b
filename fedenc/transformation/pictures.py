"""What transformation networks make of images: a picture like fig. 7 of Ito, Kinoshita & Kiya."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from fedenc.images import metrics, sheets
from fedenc.images.metrics import Window


def compare(
    plain: Tensor,
    protected: Sequence[tuple[str, Tensor]],
    *,
    window: Window = "uniform7",
    cell: int = 96,
) -> Image.Image:
    """Plain images on top, then a row for each network, with the SSIM to plain under each image.

    The published figure has ten test images, and a row for each α: 0, 0.005, 0.01 and 0.05. SSIM
    is that of ``metrics.ssim``; the mean beside a row is over the images that it shows.

    Args:
        plain: uint8 N×3×H×W.
        protected: for each row its label, such as ``"alpha 0.01"``, and its images, uint8 N×3×H×W.
        window: of SSIM; by default the one of the paper.
        cell: pixels a side that an image is shown in.

    Raises:
        DataError: images of different shapes, or smaller than the window.
    """
    height, width = plain.shape[-2:]
    rows = [sheets.Row("plain", list(plain), [f"{width} x {height}"] * len(plain))]
    for label, images in protected:
        values = metrics.ssim(plain, images, window)
        captions = [f"{value:.3f}" for value in values.tolist()]
        mean = f"{label}\n\nmean SSIM\n{values.mean():.3f}\n({window})"
        rows.append(sheets.Row(mean, list(images), captions))
    return sheets.grid(rows, cell=cell)
