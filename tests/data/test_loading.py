"""The door: names, arguments that do not go together, and synthetic noise."""

import numpy as np
import pytest

from fedenc.data import NAMES, load
from fedenc.errors import DataError


def test_names():
    assert NAMES == ("photos", "cifar10", "cifar100", "stl10", "folder", "synthetic")


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("mnist", {}, "no data set is called 'mnist'; expected one of photos, cifar10"),
        ("photos", {"root": "/tmp"}, "photos reads no files"),
        ("synthetic", {"root": "/tmp"}, "synthetic reads no files"),
        ("photos", {"count": 5}, "count=5 is for synthetic alone"),
        ("synthetic", {"count": 0}, "count=0"),
        ("synthetic", {"size": 0}, "size=0"),
        ("folder", {"size": -3}, "size=-3"),
    ],
)
def test_bad_arguments(name, options, complaint, tmp_path):
    with pytest.raises(DataError, match=complaint):
        load(name, cache=tmp_path, **options)


@pytest.mark.parametrize(("count", "size"), [(1, 32), (37, 8), (5000, 64)])
def test_synthetic(count, size, tmp_path):
    dataset = load("synthetic", count=count, size=size, cache=tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(dataset.classes) == 10
    assert len(dataset.train) == count
    for split in (dataset.train, dataset.test):
        assert split.images.shape == (len(split), 3, size, size)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert not split.images.flags.writeable
        assert not split.labels.flags.writeable
        counts = np.bincount(split.labels, minlength=10)
        assert counts.max() - counts.min() <= 1


def test_synthetic_is_deterministic_distinct_noise():
    first, second = (load("synthetic", count=2000, size=16) for _ in range(2))
    assert np.array_equal(first.train.images, second.train.images)
    assert np.array_equal(first.train.labels, second.train.labels)
    rows = np.concatenate([first.train.images, first.test.images]).reshape(2400, -1)
    assert len(np.unique(rows, axis=0)) == 2400
    assert rows.mean() == pytest.approx(127.5, abs=1)
    assert rows.std() == pytest.approx(73.9, abs=1)


def test_synthetic_is_cheap_at_scale():
    dataset = load("synthetic")
    assert len(dataset.train) == 250_000
    low, high = np.lib.array_utils.byte_bounds(dataset.train.images)
    assert high - low < 32 * 2**20
