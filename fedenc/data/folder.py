"""``folder``: any tree of image files, one folder per class (torchvision's ImageFolder layout)."""

import hashlib
import logging
import os
from pathlib import Path

from fedenc.data.cache import Decoded, Part, Source
from fedenc.errors import DataError

logger = logging.getLogger(__name__)

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TEST_SHARE = 0.2  # of each class, where the tree has no split of its own

Files = dict[str, list[Path]]  # class -> its image files, sorted


def source(root: Path, size: int) -> Source:
    """The images under ``root``, resized (short side, then centre crop) to ``size``×``size``.

    ``root/train/<class>/*`` and ``root/test/<class>/*``; or ``root/<class>/*``, of which each
    class's files are then split 80/20 by a hash of their paths, so that the same files are always
    split in the same way. Classes are numbered in the order of their names. Files of other types
    and hidden ones are ignored, deeper folders are searched. Images become RGB, upright by their
    EXIF orientation.

    Raises:
        DataError: no such folder, only one of train and test, an empty class, classes that differ
            between train and test. Images that cannot be decoded are found only when decoding.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder; expected one with train/<class>/ and test/<class>/, or "
            "<class>/ folders of images: set data.root"
        )
    has = [split for split in ("train", "test") if (root / split).is_dir()]
    if len(has) == 1:
        raise DataError(
            f"{root} has {has[0]}/ but not {'test' if has == ['train'] else 'train'}/; expected "
            "both, or class folders only (they are then split 80/20)"
        )
    if has:
        train, test = _scan(root / "train"), _scan(root / "test")
        if odd := sorted(train.keys() ^ test.keys()):
            raise DataError(
                f"classes {', '.join(odd)} are in only one of {root}/train and {root}/test; "
                "expected the same class folders in both"
            )
    else:
        train, test = _split(root, _scan(root))
    files = tuple(file for side in (train, test) for group in side.values() for file in group)
    parameters = {"size": size, "root": str(root.resolve()), "split": bool(has)}

    def decode() -> Decoded:
        if not has:
            logger.warning(
                "%s has no train/ and test/ folders: of each class %.0f %% of the files are kept "
                "for testing, chosen by a hash of their paths",
                root,
                100 * TEST_SHARE,
            )
        return Decoded(tuple(train), _part(train, size), _part(test, size))

    return Source("folder", files, parameters, decode)


def _scan(root: Path) -> Files:
    names = sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."
    )
    if not names:
        raise DataError(f"{root} has no class folders; expected <class>/ folders of images in it")
    classes = {name: _images(root / name) for name in names}
    if empty := [str(root / name) for name, files in classes.items() if not files]:
        raise DataError(
            f"no images in {', '.join(empty)}; expected {', '.join(EXTENSIONS)} files: "
            "add some or remove the folder"
        )
    return classes


def _images(folder: Path) -> list[Path]:
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(EXTENSIONS) and name[0] != "."
    )


def _split(root: Path, classes: Files) -> tuple[Files, Files]:
    train: Files = {}
    test: Files = {}
    for name, files in classes.items():
        if len(files) < 2:
            raise DataError(
                f"{root / name} has one image; expected at least two, for one goes to the test "
                "split: add some, or make train/ and test/ folders"
            )
        ranked = sorted(files, key=lambda file: _hash(file.relative_to(root)))
        held_out = max(1, round(TEST_SHARE * len(files)))
        test[name], train[name] = sorted(ranked[:held_out]), sorted(ranked[held_out:])
    return train, test


def _hash(path: Path) -> bytes:
    return hashlib.blake2b(path.as_posix().encode(errors="surrogateescape")).digest()


def _part(classes: Files, size: int) -> Part:
    from fedenc.data.batches import Item, decode_batches

    items = [
        Item(file, label, str(file))
        for label, files in enumerate(classes.values())
        for file in files
    ]
    return Part(len(items), decode_batches(items, size))
