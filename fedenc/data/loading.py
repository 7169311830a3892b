"""One door to every data set."""

from pathlib import Path

from fedenc.data import photos
from fedenc.data.cache import cached
from fedenc.data.dataset import Dataset
from fedenc.errors import DataError

NAMES = ("photos",)


def load(
    name: str,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    download: bool = False,
    cache: Path | None = None,
) -> Dataset:
    """Load a data set."""
    if name not in NAMES:
        raise DataError(f"no data set is called {name!r}; expected one of {', '.join(NAMES)}")
    return cached(photos.source(size), cache)
