"""Loading any data set by its name."""

from pathlib import Path

from fedenc.data import folder, parquet, photos, vision
from fedenc.data.cache import Source, cached, default_cache
from fedenc.data.dataset import Dataset
from fedenc.data.synthetic import COUNT, synthetic
from fedenc.errors import DataError

NAMES = ("photos", "cifar10", "cifar100", "stl10", "folder", "synthetic")


def load(
    name: str,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    download: bool = False,
    cache: Path | None = None,
    count: int | None = None,
) -> Dataset:
    """Load a data set; decoded arrays are cached on disk and memory-mapped from there.

    Args:
        name: one of `NAMES`. ``photos`` needs nothing (see `fedenc.data.photos`). ``cifar10``,
            ``cifar100`` and ``stl10`` are read from Parquet files in Hugging Face's layout if
            ``root`` holds some (`fedenc.data.parquet`), else by torchvision (`fedenc.data.vision`).
            ``folder`` is a tree of image files (`fedenc.data.folder`). ``synthetic`` is noise
            (`fedenc.data.synthetic`).
        root: where the files are. None: ``<cache>/torchvision``, and an error for ``folder``;
            ``photos`` and ``synthetic`` take none.
        size: pixels a side. Images of another size are resized (short side, antialiased bilinear)
            and centre-cropped. Required for ``folder``; None keeps the images as they are.
        download: let torchvision fetch ``cifar10``, ``cifar100`` or ``stl10`` if missing.
        cache: folder of the cache. None: ``$FEDENC_CACHE``, else the user's cache folder
            (``$XDG_CACHE_HOME/fedenc``, ``~/.cache/fedenc``, on macOS ``~/Library/Caches/fedenc``).
            It holds only copies and may be deleted at any time.
        count: training images of ``synthetic`` (250,000 by default).

    Returns:
        Dataset: read-only uint8 images (N, 3, H, W) and int64 labels (N,), training and test.

    Raises:
        DataError: an unknown name, an argument that does not go with it, or missing, damaged or
            unusable files; says which, what was expected and how to get it.
    """
    if name not in NAMES:
        raise DataError(f"no data set is called {name!r}; expected one of {', '.join(NAMES)}")
    if size is not None and size < 1:
        raise DataError(f"images cannot have size={size}; expected pixels a side, 1 or more")
    if name in ("photos", "synthetic") and root is not None:
        raise DataError(f"{name} reads no files, so data.root={root} means nothing; leave it out")
    if name == "synthetic":
        return synthetic(_positive(count), size or 32)
    if count is not None:
        raise DataError(
            f"count={count} is for synthetic alone; {name} has as many images as its files hold: "
            "leave it out, or cap the images of a participant instead"
        )
    cache = default_cache() if cache is None else Path(cache)
    return cached(_source(name, None if root is None else Path(root), size, download, cache), cache)


def _positive(count: int | None) -> int:
    if count is not None and count < 1:
        raise DataError(f"synthetic cannot have count={count} images; expected 1 or more")
    return COUNT if count is None else count


def _source(name: str, root: Path | None, size: int | None, download: bool, cache: Path) -> Source:
    if name == "photos":
        return photos.source(size)
    if name == "folder":
        if root is None or size is None:
            missing = "data.root, the folder" if root is None else "data.size, in pixels"
            raise DataError(
                f"folder needs {missing}; expected both a root with one folder per class "
                "and the size to resize them to"
            )
        return folder.source(root.expanduser(), size)
    root = cache / "torchvision" if root is None else root.expanduser()
    if (found := parquet.find(root, name)) is not None:
        return parquet.source(name, found, size)
    return vision.source(name, root, size, download=download)
