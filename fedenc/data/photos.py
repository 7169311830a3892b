"""``photos``: the built-in data set, cut from the colour photographs that scikit-image bundles.

It exists so that everything runs without a download; accuracies on it prove nothing. A class is one
photograph, so a classifier only has to tell the colours and textures of eight photographs apart.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedenc.data.cache import Batch, Decoded, Part, Source
from fedenc.errors import DataError

SIDE = 32  # pixels; side of a patch, and the gap between the training and the test region
VARIANCE_FLOOR = 16.0  # grey levels squared, mean over R, G, B; below: empty sky, black border
TEST_SHARE = 0.22  # of a photograph's width
TRAIN_CAP = 160  # patches per class, or the three largest photographs would outnumber the rest
TEST_CAP = 80

# The colour photographs of scikit-image's wheel, one per scene (motorcycle_right repeats _left;
# the other colour files are drawings or test charts).
FILES = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "galaxies": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}


def source(size: int | None) -> Source:
    """The ``photos`` data set: 8 classes, 1,118 training and 452 test patches, uint8 (3, 32, 32).

    Each photograph is cut into non-overlapping 32×32 patches on a grid. A vertical strip in its
    middle (22 % of the width) is the test region; one column of patches on either side of the
    strip is dropped, so training and test pixels are at least 32 pixels apart. Patches whose
    variance is below ``VARIANCE_FLOOR`` are dropped. Of what is left at most 160 training and 80
    test patches a class are kept, evenly spaced over the photograph; the classes then hold 81 to
    160 training and 22 to 80 test patches. Nothing is random.

    ``size`` must be None or 32.
    """
    if size not in (None, SIDE):
        raise DataError(
            f"photos has patches of {SIDE}×{SIDE} pixels, not size={size}; leave size out, "
            "or use a data set of larger images"
        )
    folder = _bundled()
    files = tuple(folder / file for file in FILES.values())
    if missing := [str(file) for file in files if not file.is_file()]:
        raise DataError(
            f"scikit-image's bundled photographs are missing: {', '.join(missing)}; "
            "install scikit-image from its wheel again (pip install --force-reinstall scikit-image)"
        )
    return Source("photos", files, {"size": SIDE}, lambda: _decode(files))


def _bundled() -> Path:
    """scikit-image's data folder, found without importing the package."""
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "photos is cut from photographs bundled with scikit-image, which is not installed; "
            "run pip install scikit-image"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _decode(files: tuple[Path, ...]) -> Decoded:
    from fedenc.images.decode import decode

    cuts = [cut(decode(file, str(file))) for file in files]
    return Decoded(
        classes=tuple(FILES),
        train=_part([train for train, _ in cuts]),
        test=_part([test for _, test in cuts]),
    )


def cut(photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Training and test patches, each uint8 (n, 3, 32, 32), of a photograph, uint8 (H, W, 3)."""
    rows, columns = photo.shape[0] // SIDE, photo.shape[1] // SIDE
    grid = photo[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE, 3)
    patches = grid.transpose(0, 2, 4, 1, 3)  # (rows, columns, 3, 32, 32)
    varied = patches.var(axis=(-2, -1), dtype=np.float64).mean(axis=-1) >= VARIANCE_FLOOR
    width = max(2, round(columns * TEST_SHARE))
    start = (columns - width) // 2
    column = np.arange(columns)
    inside = (column >= start) & (column < start + width)
    outside = (column < start - 1) | (column > start + width)
    return (
        _evenly(patches[varied & outside], TRAIN_CAP),
        _evenly(patches[varied & inside], TEST_CAP),
    )


def _evenly(patches: NDArray[np.uint8], cap: int) -> NDArray[np.uint8]:
    if len(patches) <= cap:
        return patches
    return patches[np.arange(cap) * len(patches) // cap]


def _part(classes: list[NDArray[np.uint8]]) -> Part:
    def batches() -> Iterator[Batch]:
        for label, patches in enumerate(classes):
            yield patches, np.full(len(patches), label, dtype=np.int64)

    return Part(sum(map(len, classes)), batches())
