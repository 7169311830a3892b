"""Image folders: compared with torchvision's ImageFolder, and every defect named."""

import numpy as np
import pytest
from PIL import Image

from fedenc.data import load
from fedenc.errors import DataError


@pytest.fixture
def read(tmp_path):
    def read(root, size=16, **options):
        return load("folder", root=root, size=size, cache=tmp_path / "cache", **options)

    return read


def save(file, shape=(20, 20), seed=0, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, **options)
    return pixels


@pytest.fixture
def root(tmp_path):
    """Three classes, train and test, of several shapes, formats and depths."""
    folder, seed = tmp_path / "pets", 0
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog", "ant eater"):
            for i in range(count):
                suffix = ("png", "JPG", "webp", "bmp")[i]
                save(folder / split / name / f"{i}.{suffix}", (16 + 5 * i, 30), seed)
                seed += 1
    save(folder / "train" / "cat" / "deeper" / "z.png", seed=seed)
    (folder / "train" / "cat" / "notes.txt").write_text("ignored")
    (folder / "train" / "cat" / ".hidden.png").write_text("ignored")
    return folder


def test_agrees_with_image_folder(root, read):
    """The same classes, labels and order; pixels up to where the crop starts (half a pixel)."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import functional

    def is_image(file):
        return not file.endswith((".txt", ".hidden.png"))

    dataset = read(root)
    for name, mine in (("train", dataset.train), ("test", dataset.test)):
        reference = ImageFolder(str(root / name), is_valid_file=is_image)
        assert dataset.classes == tuple(reference.classes)
        assert mine.labels.tolist() == reference.targets
        expected = [functional.center_crop(functional.resize(x, 16), 16) for x, _ in reference]
        flat = np.stack(expected).transpose(0, 3, 1, 2).reshape(len(mine), -1).astype(float)
        distance = np.abs(mine.images.reshape(len(mine), 1, -1) - flat[None]).mean(axis=-1)
        assert (distance.argmin(axis=1) == np.arange(len(mine))).all()
        assert distance.diagonal().max() < 12
        assert distance[~np.eye(len(mine), dtype=bool)].min() > 20


def test_counts_and_order(root, read):
    (root / "train" / ".git").mkdir()  # no class
    dataset = read(root)
    assert dataset.classes == ("ant eater", "cat", "dog")
    assert np.bincount(dataset.train.labels).tolist() == [4, 5, 4]
    assert np.bincount(dataset.test.labels).tolist() == [2, 2, 2]
    assert dataset.train.images.shape == (13, 3, 16, 16)


def test_images_of_the_right_size_are_untouched(tmp_path, read):
    pixels = [save(tmp_path / "set" / "a" / f"{i}.png", (16, 16), i) for i in range(5)]
    dataset = read(tmp_path / "set")
    found = np.concatenate([dataset.train.images, dataset.test.images]).transpose(0, 2, 3, 1)
    assert sorted(p.tobytes() for p in pixels) == sorted(f.tobytes() for f in found)


def test_the_centre_is_kept(tmp_path, read):
    for i in range(2):
        pixels = save(tmp_path / "set" / "a" / f"{i}.png", (16, 40))
    image = read(tmp_path / "set").train.images[0]
    assert np.array_equal(image, pixels[:, 12:28].transpose(2, 0, 1))


def test_exif_orientation_gray_and_alpha(tmp_path, read):
    upright = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    for split in ("train", "test"):
        folder = tmp_path / "set" / split / "a"
        folder.mkdir(parents=True)
        Image.fromarray(upright[::-1, ::-1]).save(folder / "0.png", exif=exif)
        Image.fromarray(upright[..., 0]).save(folder / "1.png")
        Image.fromarray(np.dstack([upright, upright[..., :1]])).save(folder / "2.png")
    images = read(tmp_path / "set").train.images
    assert np.array_equal(images[0], upright.transpose(2, 0, 1))
    assert np.array_equal(images[1], np.stack([upright[..., 0]] * 3))
    assert np.array_equal(images[2], upright.transpose(2, 0, 1))


def test_80_20_split_is_stable(tmp_path, read, caplog):
    for name in ("a", "b"):
        for i in range(20):
            save(tmp_path / "set" / name / f"{i}.png", (16, 16), seed=i)
    first = read(tmp_path / "set")
    assert "20 % of the files are kept for testing" in caplog.text
    assert np.bincount(first.train.labels).tolist() == [16, 16]
    assert np.bincount(first.test.labels).tolist() == [4, 4]
    before = {image.tobytes() for image in first.test.images[first.test.labels == 0]}
    save(tmp_path / "set" / "b" / "more.png", (16, 16), seed=99)
    again = read(tmp_path / "set")
    assert before == {image.tobytes() for image in again.test.images[again.test.labels == 0]}


def test_a_changed_file_is_noticed(root, read):
    before = read(root).train.images[0].copy()
    save(root / "train" / "ant eater" / "0.png", seed=1234)
    assert not np.array_equal(read(root).train.images[0], before)


def test_missing_arguments(tmp_path):
    with pytest.raises(DataError, match=r"folder needs data\.size"):
        load("folder", root=tmp_path)
    with pytest.raises(DataError, match=r"folder needs data\.root"):
        load("folder", size=32)


def test_bad_trees(root, read, tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no class folders"):
        read(tmp_path / "empty")
    (root / "train" / "emu").mkdir()
    with pytest.raises(DataError, match=r"no images in .*train/emu"):
        read(root)
    save(root / "train" / "emu" / "1.png")
    with pytest.raises(DataError, match="classes emu are in only one of"):
        read(root)
    (root / "test").rename(root / "validation")
    with pytest.raises(DataError, match="has train/ but not test/"):
        read(root)


def test_a_class_of_one_image(tmp_path, read):
    save(tmp_path / "set" / "a" / "0.png")
    with pytest.raises(DataError, match="set/a has one image"):
        read(tmp_path / "set")


def test_an_undecodable_file(root, read):
    bad = root / "test" / "dog" / "1.JPG"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"cannot decode {bad}"):
        read(root)


def test_a_decompression_bomb(root, read, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"cannot decode .*decompression bomb"):
        read(root)
