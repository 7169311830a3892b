"""CIFAR-10, CIFAR-100 and STL-10 from Parquet files in the layout that Hugging Face exports."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedenc.data.cache import Decoded, Part, Source
from fedenc.errors import DataError

CLASSES = {"cifar10": 10, "cifar100": 100, "stl10": 10}
_SPLITS = ("train", "test")
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = {"cifar100": ("fine_label", "label")}
_ROWS = 512  # read at a time
_FETCH = "fetch it again, or point data.root at a complete copy"


def find(root: Path, name: str) -> Path | None:
    """The folder with ``name``'s Parquet files: ``root`` or an exporter's usual subfolder."""
    candidates = (root, *(root / sub for sub in ("data", name, "plain_text", "default")))
    return next((folder for folder in candidates if any(map(_files(folder).get, _SPLITS))), None)


def source(name: str, folder: Path, size: int | None) -> Source:
    """``name`` from the Parquet files in ``folder``.

    Files are ``train-*.parquet`` and ``test-*.parquet`` (or ``train/*.parquet``, ``test/*``), read
    in the order of their names; of shards called ``...-00000-of-00004`` all must be there. Columns
    are ``img`` or ``image`` (a struct with the encoded ``bytes``) and ``label`` (CIFAR-100:
    ``fine_label``). Class names come from the schema's ``huggingface`` metadata; without it a class
    is named by its number.

    Raises:
        DataError: a split or shard is missing. All other problems are found when decoding.
    """
    files = _files(folder)
    for split in _SPLITS:
        if not files[split]:
            raise DataError(
                f"{folder} has no {split} split of {name}; expected {split}-*.parquet there: "
                "copy the missing files to it"
            )
        _check_shards(files[split])
    return Source(
        name,
        (*files["train"], *files["test"]),
        {"layout": "parquet", "size": size},
        lambda: _decode(name, files["train"], files["test"], size),
    )


def _files(folder: Path) -> dict[str, list[Path]]:
    return {
        split: sorted(folder.glob(f"{split}[-_.]*parquet"))
        or sorted(folder.glob(f"{split}/*.parquet"))
        for split in _SPLITS
    }


def _check_shards(files: list[Path]) -> None:
    numbered = [(file, re.search(r"^(.*-)(\d+)(-of-(\d+).*)$", file.name)) for file in files]
    names = {file.name for file in files}
    for file, match in numbered:
        if match is None:
            continue
        prefix, number, rest, total = match.groups()
        expected = {f"{prefix}{i:0{len(number)}d}{rest}" for i in range(int(total))}
        if missing := sorted(expected - names):
            raise DataError(
                f"{file.parent} lacks {', '.join(missing)}; expected all {int(total)} shards "
                f"of {prefix.rstrip('-')}: copy the missing ones to it"
            )


def _decode(name: str, train: list[Path], test: list[Path], size: int | None) -> Decoded:
    tables = {file: _Table(file, name) for file in (*train, *test)}
    classes = tables[train[0]].classes
    for file, table in tables.items():
        if table.classes != classes:
            raise DataError(
                f"{file} names other classes than {train[0]}; "
                "expected the files of one data set: remove what does not belong"
            )

    def part(files: list[Path]) -> Part:
        from fedenc.data.batches import decode_batches

        items = (item for file in files for item in tables[file].items())
        return Part(sum(tables[file].rows for file in files), decode_batches(items, size))

    return Decoded(classes, part(train), part(test))


class _Table:
    """One Parquet file: opened, its columns and classes checked."""

    def __init__(self, file: Path, name: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.file = file
        try:
            self._parquet = pq.ParquetFile(file, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error
        self.rows: int = self._parquet.metadata.num_rows
        schema = self._parquet.schema_arrow
        self._image = self._column(schema, _IMAGE_COLUMNS)
        self._label = self._column(schema, _LABEL_COLUMNS.get(name, ("label",)))
        image, label = schema.field(self._image).type, schema.field(self._label).type
        if not (pa.types.is_struct(image) and image.get_field_index("bytes") >= 0):
            raise DataError(
                f"column {self._image} of {file} is {image}; "
                "expected a struct with the encoded images' bytes: export it again"
            )
        if not pa.types.is_integer(label):
            raise DataError(
                f"column {self._label} of {file} is {label}; expected integers: export it again"
            )
        self.classes = self._class_names(schema.metadata or {}, CLASSES[name])
        if len(self.classes) != CLASSES[name]:
            raise DataError(
                f"{file} has {len(self.classes)} classes; expected {CLASSES[name]} for {name}: "
                "check data.name and data.root"
            )

    def items(self) -> Iterator[Any]:
        """Its rows as `fedenc.data.batches.Item`, in order."""
        import pyarrow as pa

        from fedenc.data.batches import Item

        row = 0
        try:
            columns = [f"{self._image}.bytes", self._label]
            for batch in self._parquet.iter_batches(_ROWS, columns=columns):
                images = batch.column(self._image).field("bytes")
                labels = self._labels(batch.column(self._label), row)
                for data, label in zip(images, labels.tolist(), strict=True):
                    where = f"image row {row} of {self.file}"
                    if not data.is_valid:
                        raise DataError(
                            f"{where} has no bytes; expected the encoded image in the file itself: "
                            "export it with its images embedded"
                        )
                    yield Item(data.as_py(), label, where)
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.file, error) from error

    def _labels(self, column: Any, first_row: int) -> NDArray[np.int64]:
        """A batch's labels, in ``0..classes-1``; a missing one counts as out of range."""
        labels = column.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        bad = np.flatnonzero((labels < 0) | (labels >= len(self.classes)))
        if len(bad):
            raise DataError(
                f"label {labels[bad[0]]} in row {first_row + bad[0]} of {self.file}; expected "
                f"0..{len(self.classes) - 1}: remove unlabelled rows or export it again"
            )
        result: NDArray[np.int64] = labels
        return result

    def _column(self, schema: Any, names: tuple[str, ...]) -> str:
        for name in names:
            if name in schema.names:
                return name
        raise DataError(
            f"{self.file} has the columns {', '.join(schema.names)}; "
            f"expected one called {' or '.join(names)}: rename it or check data.name"
        )

    def _class_names(self, metadata: dict[bytes, bytes], count: int) -> tuple[str, ...]:
        try:
            info = json.loads(metadata[b"huggingface"])["info"]
            return tuple(map(str, info["features"][self._label]["names"]))
        except (KeyError, ValueError, TypeError):
            return tuple(map(str, range(count)))


def _damaged(file: Path, error: Exception) -> DataError:
    size = file.stat().st_size if file.exists() else 0
    text = " ".join(str(error).split())
    return DataError(f"{file} ({size:,} bytes) is not a whole Parquet file: {text}; {_FETCH}")
