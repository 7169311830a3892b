"""The embedded data set: what is promised about its patches, read off the photographs again."""

import hashlib

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from skimage import data as bundled

from fedenc.data import load, photos
from fedenc.errors import DataError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load("photos", cache=tmp_path_factory.mktemp("cache"))


def test_counts(dataset):
    assert dataset.classes == tuple(photos.FILES)
    train, test = (np.bincount(s.labels, minlength=8) for s in (dataset.train, dataset.test))
    assert (train.sum(), test.sum()) == (1118, 452)
    assert (train.min(), train.max()) == (81, 160)
    assert (test.min(), test.max()) == (22, 80)
    assert len(dataset.train) >= 20 * 50


def test_types(dataset):
    for split in (dataset.train, dataset.test):
        assert split.images.shape == (len(split), 3, 32, 32)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert not split.images.flags.writeable
        assert not split.labels.flags.writeable


def test_every_patch_is_varied_and_unique(dataset):
    images = np.concatenate([dataset.train.images, dataset.test.images])
    variance = images.reshape(len(images), 3, -1).astype(float).var(axis=-1).mean(axis=-1)
    assert variance.min() >= photos.VARIANCE_FLOOR
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


@pytest.mark.parametrize("name", ["astronaut", "cat", "coffee", "tissue"])
def test_patches_are_where_they_should_be(dataset, name):
    """Finds each patch in scikit-image's own array: disjoint, and 32 pixels between the splits."""
    functions = {"cat": "chelsea", "tissue": "immunohistochemistry"}
    photo = getattr(bundled, functions.get(name, name))()
    assert photo.dtype == np.uint8
    windows = sliding_window_view(photo, (32, 32), axis=(0, 1))[::8, ::8]  # (h, w, 3, 32, 32)
    where = {windows[at].tobytes(): at for at in np.ndindex(*windows.shape[:2])}
    label = dataset.classes.index(name)
    spots = []
    for split in (dataset.train, dataset.test):
        mine = split.images[split.labels == label]
        spots.append(np.array([where[patch.tobytes()] for patch in mine]) * 8)
    train, test = spots
    together = np.concatenate(spots)
    distance = np.abs(together[:, None] - together[None]).max(axis=-1)
    assert (distance[~np.eye(len(together), dtype=bool)] >= 32).all()
    gap = np.abs(train[:, None] - test[None]).max(axis=-1) - 32
    assert gap.min() >= 32


def test_golden_bytes(dataset):
    """Lossless photographs only: JPEG decoders may round differently."""
    lossless = [dataset.classes.index(n) for n in ("astronaut", "cat", "coffee", "tissue")]
    keep = np.isin(dataset.train.labels, lossless)
    digest = hashlib.sha256(dataset.train.images[keep].tobytes()).hexdigest()
    assert digest[:16] == "755add41d3dc6e9d"


def test_cut_drops_flat_patches_and_is_capped():
    noise = np.random.default_rng(0).integers(0, 256, (32 * 20, 32 * 40, 3), dtype=np.uint8)
    train, test = photos.cut(noise)
    assert (len(train), len(test)) == (photos.TRAIN_CAP, photos.TEST_CAP)
    noise[64:] = 7  # two of twenty rows of patches stay
    train, test = photos.cut(noise)
    assert (len(train), len(test)) == (2 * (40 - 9 - 2), 2 * 9)
    train, test = photos.cut(np.full_like(noise, 7))
    assert (len(train), len(test)) == (0, 0)


def test_other_sizes_are_refused(tmp_path):
    with pytest.raises(DataError, match="size=64"):
        load("photos", size=64, cache=tmp_path)


def test_missing_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "_bundled", lambda: tmp_path)
    with pytest.raises(DataError, match=r"astronaut\.png.*scikit-image"):
        load("photos", cache=tmp_path / "cache")
