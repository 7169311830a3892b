"""The cache of decoded arrays: one decoder, no torn reads, rebuilt when damaged."""

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fedenc.data.cache import Decoded, Part, Source, cached, default_cache
from fedenc.errors import DataError


def make_source(folder, *, decoded=None, wait=0.0, count=300, value=None):
    """A source of one file; each decoding leaves a mark in ``folder/decodings``."""
    file = folder / "source.bin"
    if not file.exists():
        file.write_bytes(b"pixels")

    def decode():
        with (folder / "decodings").open("a") as log:
            log.write("x")
        time.sleep(wait)
        if decoded is not None:
            return decoded
        rng = np.random.default_rng(0 if value is None else value)
        images = rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
        labels = np.arange(count) % 2
        halves = [(images[:100], labels[:100]), (images[100:], labels[100:])]
        return Decoded(("a", "b"), Part(count, iter(halves)), Part(100, iter(halves[:1])))

    return Source("noise", (file,), {"size": None}, decode)


def decodings(folder):
    log = folder / "decodings"
    return len(log.read_text()) if log.exists() else 0


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def entry(cache):
    (found,) = (path for path in cache.iterdir() if path.is_dir())
    return found


def test_decodes_once_and_keeps_the_bytes(tmp_path, cache):
    first = cached(make_source(tmp_path), cache)
    second = cached(make_source(tmp_path), cache)
    assert decodings(tmp_path) == 1
    expected = np.random.default_rng(0).integers(0, 256, (300, 3, 8, 8), dtype=np.uint8)
    for dataset in (first, second):
        assert np.array_equal(dataset.train.images, expected)
        assert np.array_equal(dataset.train.labels, np.arange(300) % 2)
        assert np.array_equal(dataset.test.images, expected[:100])
        assert dataset.classes == ("a", "b")
        assert isinstance(dataset.train.images, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            dataset.train.images[0] = 0


def test_another_source_is_another_entry(tmp_path, cache):
    cached(make_source(tmp_path), cache)
    source = make_source(tmp_path)
    os.utime(source.files[0], ns=(1, 1))
    cached(source, cache)
    source.files[0].write_bytes(b"longer pixels")
    cached(source, cache)
    cached(Source("noise", source.files, {"size": 9}, source.decode), cache)
    assert decodings(tmp_path) == 4


@pytest.mark.parametrize(
    "damage",
    ["truncate", "flip", "delete-array", "delete-meta", "garble-meta", "empty-meta", "list-meta"],
)
def test_a_damaged_entry_is_rebuilt(tmp_path, cache, damage):
    mapped = cached(make_source(tmp_path), cache)
    before = mapped.train.images.copy()
    images, meta = entry(cache) / "train-images.npy", entry(cache) / "meta.json"
    match damage:
        case "truncate":
            os.replace(_copy(images, images.read_bytes()[:-1]), images)
        case "flip":
            content = bytearray(images.read_bytes())
            content[-1] ^= 1
            os.replace(_copy(images, bytes(content)), images)
        case "delete-array":
            images.unlink()
        case "delete-meta":
            meta.unlink()
        case "garble-meta":
            meta.write_text('{"classes": ["a"')
        case "empty-meta":
            meta.write_text("{}")
        case "list-meta":
            meta.write_text("[]")
    again = cached(make_source(tmp_path), cache)
    assert decodings(tmp_path) == 2
    assert np.array_equal(again.train.images, before)
    assert np.array_equal(mapped.train.images, before)  # what was mapped stays valid
    cached(make_source(tmp_path), cache)
    assert decodings(tmp_path) == 2


def _copy(file, content):
    other = file.with_suffix(".copy")
    other.write_bytes(content)
    return other


def test_a_copied_entry_is_hashed_once_and_accepted(tmp_path, cache):
    cached(make_source(tmp_path), cache)
    images = entry(cache) / "train-images.npy"
    recorded = images.stat().st_mtime_ns
    os.utime(images, ns=(5, 5))
    cached(make_source(tmp_path), cache)
    assert decodings(tmp_path) == 1
    assert images.stat().st_mtime_ns == recorded


def _load_and_report(folder, cache, barrier, queue):
    barrier.wait()
    dataset = cached(make_source(folder, wait=0.3), cache)
    queue.put(int(dataset.train.images.sum(dtype=np.int64)))


def test_many_processes_decode_once(tmp_path, cache):
    make_source(tmp_path)  # else each process may write the file, at a time of its own
    context = mp.get_context("fork")
    barrier, queue = context.Barrier(8), context.Queue()
    arguments = (tmp_path, cache, barrier, queue)
    workers = [context.Process(target=_load_and_report, args=arguments) for _ in range(8)]
    for worker in workers:
        worker.start()
    sums = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert decodings(tmp_path) == 1
    assert len(sums) == 1


def test_many_threads_decode_once(tmp_path, cache):
    make_source(tmp_path)
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(cached(make_source(tmp_path, wait=0.1), cache))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert decodings(tmp_path) == 1


def test_a_killed_decoder_blocks_nobody(tmp_path, cache):
    """Killed while it holds the lock, half-way through its writing."""
    script = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_data_cache import make_source
from fedenc.data.cache import Decoded, Part, cached
import numpy as np
def endless():
    yield np.zeros((1, 3, 8, 8), np.uint8), np.zeros(1, np.int64)
    print("decoding", flush=True)
    time.sleep(600)
stuck = Decoded(("a", "b"), Part(9, endless()), Part(9, endless()))
cached(make_source(Path({str(tmp_path)!r}), decoded=stuck), Path({str(cache)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"decoding\n"
        assert list(cache.glob("*.tmp"))
        child.send_signal(signal.SIGKILL)
    dataset = cached(make_source(tmp_path), cache)
    assert len(dataset.train) == 300
    assert not list(cache.glob("*.tmp"))


def test_a_failed_decoding_leaves_nothing(tmp_path, cache):
    def broken():
        yield np.zeros((1, 3, 8, 8), np.uint8), np.zeros(1, np.int64)
        raise DataError("row 1 is bad")

    decoded = Decoded(("a",), Part(2, broken()), Part(2, broken()))
    with pytest.raises(DataError, match="row 1 is bad"):
        cached(make_source(tmp_path, decoded=decoded), cache)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    assert len(cached(make_source(tmp_path), cache).train) == 300


def _part(count, side=8, announced=None):
    batch = (np.zeros((count, 3, side, side), np.uint8), np.zeros(count, np.int64))
    return Part(count if announced is None else announced, iter([batch] if count else []))


@pytest.mark.parametrize(
    ("train", "test", "complaint"),
    [
        (_part(0), _part(3), "train split of noise announces 0 images"),
        (_part(4, announced=5), _part(3), "announces 5 images and holds 4"),
        (_part(4), _part(3, side=9), "training and test images of noise differ"),
    ],
)
def test_inconsistent_sources(tmp_path, cache, train, test, complaint):
    with pytest.raises(DataError, match=complaint):
        cached(make_source(tmp_path, decoded=Decoded(("a",), train, test)), cache)


def test_an_unwritable_cache(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(DataError, match="FEDENC_CACHE to a writable folder"):
        cached(make_source(tmp_path), blocked / "cache")


def test_a_source_that_vanished(tmp_path, cache):
    source = make_source(tmp_path)
    source.files[0].unlink()
    with pytest.raises(DataError, match=r"cannot read .*source\.bin"):
        cached(source, cache)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDENC_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("FEDENC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "fedenc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_cache() == tmp_path / ".cache" / "fedenc"


def test_importing_is_light():
    code = (
        "import sys, fedenc.data, fedenc.data.partition\n"
        "heavy = {'torch', 'torchvision', 'pyarrow', 'PIL', 'skimage', 'flwr', 'ray'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
