"""torchvision's layouts, on small trees written here with checksums to match."""

import hashlib
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedenc.data import load
from fedenc.errors import DataError

vision = pytest.importorskip("torchvision.datasets")


def noise(count, seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def put(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return [name, hashlib.md5(content).hexdigest()]


def cifar10(root, monkeypatch):
    folder, kind = root / "cifar-10-batches-py", vision.CIFAR10
    batch = {"data": noise(20).reshape(20, -1), "labels": [i % 10 for i in range(20)]}
    test = {"data": noise(10, 1).reshape(10, -1), "labels": list(range(10))}
    meta = put(folder, "batches.meta", pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(kind, "train_list", [put(folder, "data_batch_1", pickle.dumps(batch))])
    monkeypatch.setattr(kind, "test_list", [put(folder, "test_batch", pickle.dumps(test))])
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})


def stl10(root, monkeypatch):
    folder, kind = root / "stl10_binary", vision.STL10
    # Files hold column-major images and labels from 1.
    train, test = noise(10, side=96), noise(10, 1, side=96)
    labels = (np.arange(10) + 1).astype(np.uint8).tobytes()
    put(folder, "class_names.txt", "\n".join("abcdefghij").encode())
    lists = [
        [
            put(folder, f"{split}_X.bin", images.transpose(0, 1, 3, 2).tobytes()),
            put(folder, f"{split}_y.bin", labels),
        ]
        for split, images in (("train", train), ("test", test))
    ]
    monkeypatch.setattr(kind, "train_list", lists[0])
    monkeypatch.setattr(kind, "test_list", lists[1])


@pytest.fixture
def read(tmp_path):
    def read(name, **options):
        return load(name, **({"root": tmp_path / "set"} | options), cache=tmp_path / "cache")

    return read


def test_cifar10(tmp_path, monkeypatch, read):
    cifar10(tmp_path / "set", monkeypatch)
    dataset = read("cifar10")
    assert np.array_equal(dataset.train.images, noise(20))
    assert np.array_equal(dataset.test.images, noise(10, 1))
    assert dataset.train.labels.tolist() == [i % 10 for i in range(20)]
    assert dataset.classes == tuple("abcdefghij")


def test_stl10(tmp_path, monkeypatch, read):
    stl10(tmp_path / "set", monkeypatch)
    dataset = read("stl10")
    assert np.array_equal(dataset.train.images, noise(10, side=96))
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.classes == tuple("abcdefghij")
    assert read("stl10", size=32).train.images.shape == (10, 3, 32, 32)


def test_default_root_is_in_the_cache(tmp_path, monkeypatch, read):
    cifar10(tmp_path / "cache" / "torchvision", monkeypatch)
    assert len(read("cifar10", root=None).train) == 20


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_missing(name, read):
    with pytest.raises(DataError, match=rf"{name} is not in .*set.*data\.download=true"):
        read(name)


def test_damaged(tmp_path, monkeypatch, read):
    cifar10(tmp_path / "set", monkeypatch)
    file = tmp_path / "set" / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="cifar-10-batches-py is incomplete or damaged"):
        read("cifar10")


def test_download(tmp_path, monkeypatch, read):
    """The download itself is torchvision's; here it is replaced by writing the small tree."""
    folder, fetched = tmp_path / "set" / "cifar-10-batches-py", []

    def fetch(self):
        if not folder.is_dir():
            fetched.append(self.root)
            cifar10(tmp_path / "set", monkeypatch)

    monkeypatch.setattr(vision.CIFAR10, "download", fetch)
    for _ in range(2):
        assert len(read("cifar10", download=True).train) == 20
    assert fetched == [tmp_path / "set"]


def test_many_downloaders_fetch_once(tmp_path, monkeypatch, read):
    folder, fetched = tmp_path / "set" / "cifar-10-batches-py", []

    def fetch(self):
        if folder.is_dir() and not fetched[0].is_alive():
            return
        fetched.append(threading.current_thread())
        folder.mkdir(parents=True)  # fails if a second one unpacks at the same time
        time.sleep(0.1)
        cifar10(tmp_path / "set", monkeypatch)
        fetched[0] = threading.Thread()  # never started: not alive

    monkeypatch.setattr(vision.CIFAR10, "download", fetch)
    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(read, "cifar10", download=True) for _ in range(6)]
        assert [len(load.result().train) for load in loads] == [20] * 6
    assert len(fetched) == 1


def test_no_network(monkeypatch, read):
    def fetch(self):
        raise OSError("<urlopen error no route to host>")

    monkeypatch.setattr(vision.CIFAR100, "download", fetch)
    with pytest.raises(DataError, match=r"cannot download cifar100 .*no route to host"):
        read("cifar100", download=True)
