"""Parquet files in Hugging Face's layout: read exactly, and every defect named."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fedenc.data import load
from fedenc.errors import DataError

CIFAR10 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cifar10"
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def noise(count, side=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def write(
    file, encoded, labels, *, image="img", label="label", names=NAMES, struct=True, extra=None
):
    """One Parquet file as Hugging Face's exporter writes it."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": None} for data in encoded]
    columns = {
        image: pa.array(rows, kind) if struct else pa.array(encoded),
        label: pa.array(labels),
    }
    table = pa.table(columns | (extra or {}))
    if names is not None:
        features = {
            image: {"_type": "Image"},
            label: {"names": list(names), "_type": "ClassLabel"},
        }
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=7)


@pytest.fixture
def root(tmp_path):
    """Two training shards of 20 images each and one test shard of 10."""
    folder = tmp_path / "set"
    images, labels = noise(50), np.arange(50) % 10
    for number, kind in ((0, "PNG"), (1, "WEBP")):
        part = slice(20 * number, 20 * (number + 1))
        file = folder / f"train-{number:05d}-of-00002.parquet"
        write(file, [encode(image, kind) for image in images[part]], labels[part])
    file = folder / "test-00000-of-00001.parquet"
    write(file, [encode(image) for image in images[40:]], labels[40:])
    return folder


@pytest.fixture
def read(tmp_path):
    def read(root, name="cifar10", **options):
        return load(name, root=root, cache=tmp_path / "cache", **options)

    return read


def test_pixels_labels_and_classes(root, read):
    for _ in range(2):  # decoded, then cached
        dataset = read(root)
        expected = noise(50).transpose(0, 3, 1, 2)
        assert np.array_equal(dataset.train.images, expected[:40])
        assert np.array_equal(dataset.test.images, expected[40:])
        assert np.array_equal(dataset.train.labels, np.arange(40) % 10)
        assert dataset.train.labels.dtype == np.int64
        assert dataset.classes == tuple(NAMES)
        assert dataset.name == "cifar10"


@pytest.mark.parametrize("sub", ["data", "cifar10", "plain_text"])
def test_usual_subfolders(root, read, tmp_path, sub):
    home = tmp_path / "home"
    home.mkdir()
    root.rename(home / sub)
    assert len(read(home).train) == 40


def test_a_folder_for_each_split(read, tmp_path):
    for split, seed in (("train", 0), ("test", 1)):
        encoded = [encode(image) for image in noise(10, seed=seed)]
        write(tmp_path / "set" / split / "0000.parquet", encoded, np.arange(10))
    dataset = read(tmp_path / "set")
    assert np.array_equal(dataset.test.images, noise(10, seed=1).transpose(0, 3, 1, 2))


def test_other_column_names_and_no_class_names(read, tmp_path):
    encoded, labels = [encode(image) for image in noise(10, side=96)], np.arange(10)
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", encoded, labels, image="image", names=None)
    dataset = read(tmp_path, "stl10")
    assert dataset.train.images.shape == (10, 3, 96, 96)
    assert dataset.classes == tuple("0123456789")
    assert read(tmp_path, "stl10", size=32).train.images.shape == (10, 3, 32, 32)


def test_cifar100_uses_fine_labels(read, tmp_path):
    encoded = [encode(image) for image in noise(10)]
    fine, coarse = np.arange(10) * 11, {"coarse_label": pa.array(np.arange(10))}
    names = [f"class {i}" for i in range(100)]
    for split in ("train", "test"):
        file = tmp_path / f"{split}-00000-of-00001.parquet"
        write(file, encoded, fine, label="fine_label", names=names, extra=coarse)
    dataset = read(tmp_path, "cifar100")
    assert np.array_equal(dataset.train.labels, fine)
    assert dataset.classes == tuple(names)


def spoil(root, **options):
    """Rewrite the second training shard with something changed; returns its path."""
    file = root / "train-00001-of-00002.parquet"
    encoded = options.pop("encoded", [encode(image) for image in noise(20)])
    write(file, encoded, options.pop("labels", np.arange(20) % 10), **options)
    return file


def test_a_missing_root(read, tmp_path):
    with pytest.raises(DataError, match=r"cifar10 is not in .*nowhere.*data\.download=true"):
        read(tmp_path / "nowhere")


def test_a_missing_split(root, read):
    (root / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="has no test split of cifar10"):
        read(root)


def test_a_missing_shard(root, read):
    (root / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"lacks train-00000-of-00002\.parquet"):
        read(root)


@pytest.mark.parametrize("keep", [0, 3, 1000, -1])
def test_a_truncated_file(root, read, keep):
    file = root / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train-00001.*is not a whole Parquet file") as caught:
        read(root)
    assert "\n" not in str(caught.value)


def test_damage_inside_a_file(root, read):
    file = root / "train-00001-of-00002.parquet"
    content = bytearray(file.read_bytes())
    content[4:2000] = bytes(1996)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train-00001.*Parquet"):
        read(root)


@pytest.mark.parametrize("bad", [b"", b"not an image", encode(noise(1)[0])[:-1000]])
def test_an_undecodable_image(root, read, bad):
    encoded = [encode(image) for image in noise(20)]
    encoded[17] = bad
    file = spoil(root, encoded=encoded)
    with pytest.raises(DataError, match=f"cannot decode image row 17 of {file}"):
        read(root)


def test_an_image_without_bytes(root, read):
    encoded = [encode(image) for image in noise(20)]
    encoded[17] = None
    file = spoil(root, encoded=encoded)
    with pytest.raises(DataError, match=f"image row 17 of {file} has no bytes"):
        read(root)


def test_images_of_two_sizes(root, read):
    encoded = [encode(image) for image in noise(20)]
    encoded[3] = encode(noise(1, side=40)[0])
    spoil(root, encoded=encoded)
    with pytest.raises(DataError, match=r"row 3 of .* is 40×40 pixels but .*row 0 .* is 32×32"):
        read(root)
    assert read(root, size=32).train.images.shape == (40, 3, 32, 32)


def test_images_of_16_bits(root, read):
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32), 1000, np.uint16)).save(buffer, "PNG")
    spoil(root, encoded=[buffer.getvalue()] * 20)
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        read(root)


@pytest.mark.parametrize(("label", "shown"), [(10, 10), (-1, -1), (None, -1), (2**40, 2**40)])
def test_a_label_out_of_range(root, read, label, shown):
    labels = [*range(10), *range(10)]
    labels[13] = label
    file = spoil(root, labels=labels)
    with pytest.raises(DataError, match=rf"label {shown} in row 13 of {file}; expected 0\.\.9"):
        read(root)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image": "picture"}, "has the columns picture, label; expected one called img or image"),
        ({"label": "target"}, "has the columns img, target; expected one called label"),
        ({"struct": False}, "column img of .* is binary; expected a struct"),
        ({"labels": np.arange(20.0)}, "column label of .* is double; expected integers"),
        ({"names": NAMES[:9]}, "has 9 classes; expected 10 for cifar10"),
        ({"names": NAMES[::-1]}, "names other classes than"),
    ],
)
def test_wrong_columns(root, read, options, complaint):
    spoil(root, **options)
    with pytest.raises(DataError, match=complaint):
        read(root)


def test_another_data_set_at_root(root, read):
    with pytest.raises(DataError, match="has 10 classes; expected 100 for cifar100"):
        read(root, "cifar100")


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"CIFAR-10's Parquet files are not at {CIFAR10}")
def test_the_real_cifar10_test_split(tmp_path):
    """Decodes the 10,000 test images and compares a sample with Hugging Face's own reader."""
    datasets = pytest.importorskip("datasets")
    root = tmp_path / "set"
    root.mkdir()
    source = next(CIFAR10.glob("test-*.parquet"))
    for split in ("train", "test"):
        (root / f"{split}.parquet").symlink_to(source)
    dataset = load("cifar10", root=root, cache=tmp_path / "cache")
    assert dataset.test.images.shape == (10_000, 3, 32, 32)
    assert dataset.classes == tuple(NAMES)
    assert np.array_equal(np.bincount(dataset.test.labels), np.full(10, 1000))
    # CIFAR-10's published channel means (0.4942, 0.4851, 0.4504 on the test images)
    means = dataset.test.images.mean(axis=(0, 2, 3)) / 255
    assert means == pytest.approx([0.4942, 0.4851, 0.4504], abs=1e-3)
    table = pq.read_table(source).slice(0, 200)
    reference = datasets.Dataset(table).cast_column("img", datasets.Image())
    for row, image, label in zip(reference, dataset.test.images, dataset.test.labels, strict=False):
        assert np.array_equal(np.asarray(row["img"]).transpose(2, 0, 1), image)
        assert row["label"] == label
