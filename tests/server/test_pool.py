"""The pool: each shard once, in one order, whole or not at all after any crash."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_grid import make_shard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedenc.errors import DataError, ShardError
from fedenc.shard import VERSION, Shard
from server.pool import Pool, PoolWriter, Rows

quick = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_fresh = itertools.count()


def shards(count: int = 4) -> list[Shard]:
    return [make_shard(i, rows=2 + i) for i in range(count)]


def rows(pool: Pool, chunk_bytes: int = 1 << 20) -> Rows:
    chunks = list(pool.read(chunk_bytes))
    return np.concatenate([c[0] for c in chunks]), np.concatenate([c[1] for c in chunks])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def filled(folder: Path, each: int = 1) -> PoolWriter:
    """A pool of four shards, appended ``each`` at a time."""
    pool, all_ = PoolWriter(folder), shards()
    for start in range(0, len(all_), each):
        pool.append(all_[start : start + each])
    return pool


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    pool = filled(tmp_path)
    images, labels = rows(pool)
    np.testing.assert_array_equal(images, np.concatenate([s.images for s in shards()]))
    np.testing.assert_array_equal(labels, np.concatenate([s.arrays()["labels"] for s in shards()]))
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert pool.rows == len(labels) == 2 + 3 + 4 + 5
    assert pool.nbytes == (tmp_path / "pool.bin").stat().st_size
    assert pool.manifest(2) == shards()[2].manifest
    assert 2 in pool
    assert 4 not in pool
    assert pool.knows(shards()[0].manifest.nonce)


@quick
@given(order=st.permutations(range(4)), chunk=st.integers(1, 2000), each=st.integers(1, 4))
def test_arrival_order_shows_nowhere(
    tmp_path: Path, order: list[int], chunk: int, each: int
) -> None:
    pool, all_ = PoolWriter(tmp_path / str(next(_fresh))), shards()
    for start in range(0, 4, each):
        pool.append([all_[i] for i in order[start : start + each]])
    images, labels = rows(pool, chunk)
    np.testing.assert_array_equal(images, np.concatenate([s.images for s in all_]))
    np.testing.assert_array_equal(labels, np.concatenate([s.arrays()["labels"] for s in all_]))
    reference = PoolWriter(tmp_path / str(next(_fresh)))
    reference.append(all_)
    assert pool.digest == reference.digest
    assert pool.participants == (0, 1, 2, 3)


def test_rows_come_by_image_and_view_not_as_sent(tmp_path: Path) -> None:
    images = np.arange(6 * 48, dtype=np.int64).astype(np.uint8).reshape(6, 3, 4, 4)
    ids, views = np.array([7, 3, 3, 5, 7, 5]), np.array([1, 1, 0, 1, 0, 0])
    shard = make_shard(0, images=images, ids=ids, views=views, view_count=2, labels=np.arange(6))
    pool = PoolWriter(tmp_path)
    pool.append([shard])
    expected = sorted(range(6), key=lambda i: (ids[i], views[i]))
    got, labels = rows(pool)
    np.testing.assert_array_equal(got, images[expected])
    assert labels.tolist() == expected


@pytest.mark.parametrize("again", ["participant", "nonce"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_repeat_is_refused_and_leaves_no_trace(tmp_path: Path, again: str, at_once: bool) -> None:
    first = make_shard(0)
    if again == "participant":
        second = make_shard(0, nonce=bytes(16))
    else:
        second = make_shard(1, nonce=bytes.fromhex(first.manifest.nonce))
    pool = PoolWriter(tmp_path)
    if not at_once:
        pool.append([first])
    with pytest.raises(ShardError, match=r"already|nonce"):
        pool.append([first, second] if at_once else [second])
    assert len(pool) == (0 if at_once else 1)
    pool.append([make_shard(2)])
    pool.close()
    assert Pool(tmp_path).participants == ((2,) if at_once else (0, 2))


def test_a_killed_process_loses_nothing_it_was_told_is_stored(tmp_path: Path) -> None:
    pool = PoolWriter(tmp_path)
    for i, shard in enumerate(shards()):
        pool.append([shard])
        assert Pool(tmp_path).participants == tuple(range(i + 1))  # nothing closed or synced


def test_the_disk_is_waited_for_seldom_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd))[1])
    pool = filled(tmp_path)
    waits = len(synced)
    pool.close()
    assert waits <= 2
    assert len(synced) == waits + 2


def test_reopened_as_it_was(tmp_path: Path) -> None:
    pool = filled(tmp_path)
    before, digest = rows(pool), pool.digest
    pool.close()
    again = PoolWriter(tmp_path)
    np.testing.assert_array_equal(before[0], rows(again)[0])
    assert (again.digest, again.rows, again.nbytes) == (digest, pool.rows, pool.nbytes)
    with pytest.raises(ShardError):
        again.append([shards()[1]])


def test_shards_are_read_back_whole_by_participant(tmp_path: Path) -> None:
    writer = PoolWriter(tmp_path)
    writer.append(shards()[::-1])
    found = list(Pool(tmp_path).shards())
    assert [shard.participant for shard in found] == [0, 1, 2, 3]
    for shard, sent in zip(found, shards(), strict=True):
        assert shard.manifest == sent.manifest
        assert shard.compute_digest() == sent.manifest.digest
        assert shard.arrays().keys() == sent.arrays().keys() == {"images", "ids", "views", "labels"}


@pytest.mark.parametrize("missing", ["pool.bin", "index.jsonl", "all"])
def test_only_a_pool_can_be_read(tmp_path: Path, missing: str) -> None:
    filled(tmp_path / "pool").close()
    for name in ("pool.bin", "index.jsonl") if missing == "all" else (missing,):
        (tmp_path / "pool" / name).unlink()
    before = contents(tmp_path / "pool")
    with pytest.raises(DataError, match="does not exist; expected the pool of a run"):
        Pool(tmp_path / "pool")
    assert contents(tmp_path / "pool") == before


@quick
@given(data=st.data(), each=st.integers(1, 4))
def test_a_crash_at_any_byte_loses_only_the_unfinished(
    tmp_path: Path, data: st.DataObject, each: int
) -> None:
    """And to look at what is left changes nothing."""
    folder = tmp_path / str(next(_fresh))
    filled(folder, each).close()
    all_, ends, lines = shards(), [0], [0]
    index = (folder / "index.jsonl").read_bytes()
    for shard, line in zip(all_, index.splitlines(keepends=True), strict=True):
        ends.append(ends[-1] + sum(a.nbytes for a in shard.arrays().values()))
        lines.append(lines[-1] + len(line))
    cut_bin = data.draw(st.integers(0, ends[-1]), "pool.bin ends at")
    cut_index = data.draw(st.integers(0, lines[-1]), "index.jsonl ends at")
    os.truncate(folder / "pool.bin", cut_bin)
    os.truncate(folder / "index.jsonl", cut_index)
    whole = sum(e <= cut_bin and n <= cut_index for e, n in zip(ends[1:], lines[1:], strict=True))
    torn = contents(folder)
    seen = Pool(folder)
    assert [shard.manifest for shard in seen.shards()] == [s.manifest for s in all_[:whole]]
    assert contents(folder) == torn
    pool = PoolWriter(folder)
    assert pool.participants == seen.participants == tuple(range(whole))
    pool.append(all_[whole:])
    pool.close()
    np.testing.assert_array_equal(rows(Pool(folder))[0], np.concatenate([s.images for s in all_]))
    assert (folder / "index.jsonl").read_bytes() == index


@quick
@given(data=st.data())
def test_damage_is_found_and_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    """Nor does it cost a whole shard before it, or a byte to look at."""
    folder = tmp_path / str(next(_fresh))
    filled(folder).close()
    name = data.draw(st.sampled_from(["pool.bin", "index.jsonl"]))
    content = bytearray((folder / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    damaged = contents(folder)
    try:
        seen = Pool(folder)
    except ShardError:  # the number of the version was hit, or the name of an entry's field
        with pytest.raises(ShardError, match="left as it is"):
            PoolWriter(folder)
        assert contents(folder) == damaged
        return
    assert contents(folder) == damaged
    kept = len(seen)
    assert kept < 4 or name == "index.jsonl"  # where a space may become a tab
    if name == "pool.bin":
        ends = np.cumsum([sum(a.nbytes for a in s.arrays().values()) for s in shards()])
        assert kept == np.searchsorted(ends, at, side="right"), "all before the damage is read"
    assert seen.participants == tuple(range(kept))
    expected = [shard.images for shard in shards()[:kept]]
    if kept:
        np.testing.assert_array_equal(rows(seen)[0], np.concatenate(expected))
    pool = PoolWriter(folder)
    assert pool.participants == seen.participants
    pool.append(shards()[kept:])
    assert pool.rows == 14


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\n",
        b"[" * 10**5 + b"\n",
        b'{"manifest": 3, "offset": 0}\n',
        b'{"manifest": "{}", "offset": 0}\n',
    ],
)
def test_a_line_that_is_no_entry_ends_the_pool(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "index.jsonl").write_bytes(line)
    assert len(PoolWriter(tmp_path)) == 0
    assert (tmp_path / "index.jsonl").read_bytes() == b""


@pytest.mark.parametrize("opening", [Pool, PoolWriter])
@pytest.mark.parametrize(
    "line", [b"[]\n", b"7\n", b'{"offset": 0}\n', b'{"shard": {"version": 3}, "offset": 0}\n']
)
def test_whole_lines_of_an_unknown_format_are_refused_and_left_as_they_are(
    tmp_path: Path, opening: type[Pool], line: bytes
) -> None:
    """A line of good JSON was not torn: another program wrote it, and its data are not ours."""
    (tmp_path / "index.jsonl").write_bytes(line)
    (tmp_path / "pool.bin").write_bytes(bytes(1000))
    before = contents(tmp_path)
    with pytest.raises(ShardError, match="unknown format"):
        opening(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("opening", [Pool, PoolWriter])
@pytest.mark.parametrize("version", [0, VERSION - 1, VERSION + 1])
def test_a_pool_of_another_version_is_refused_and_left_as_it_is(
    tmp_path: Path, opening: type[Pool], version: int
) -> None:
    """Whatever else that version changed: fields of the manifest, or what the digest covers."""
    filled(tmp_path).close()
    text = (tmp_path / "index.jsonl").read_text()
    for new in (
        text.replace(rf"\"version\":{VERSION}", rf"\"version\":{version}"),
        text.replace(rf"\"version\":{VERSION}", rf"\"version\":{version},\"more\":[1]"),
    ):
        (tmp_path / "index.jsonl").write_text(new)
        before = contents(tmp_path)
        with pytest.raises(ShardError, match=f"version {version}, expected {VERSION}; .* left as"):
            opening(tmp_path)
        assert contents(tmp_path) == before


def test_small_shards_are_joined_in_time_that_grows_with_their_number(tmp_path: Path) -> None:
    """Counted, not timed: looks at the size of a shard's images."""
    looks = 0

    class Counted(np.ndarray[Any, np.dtype[np.uint8]]):
        @property
        def nbytes(self) -> int:
            nonlocal looks
            looks += 1
            return 48

    class Small(Pool):
        def __init__(self) -> None:
            pass

        def shards(self) -> Iterator[Shard]:
            for i in range(100):
                shard = make_shard(i, rows=1)
                yield replace(shard, images=shard.images.view(Counted))

    assert sum(len(labels) for _, labels in Small().read()) == 100
    assert looks == 100


def test_numbers_that_overflow_end_the_pool(tmp_path: Path) -> None:
    filled(tmp_path).close()
    for old, new in ((r"\"rows\":2", r"\"rows\":-2"), ("[3,4,4]", f"[{2**31},{2**31},{2**33}]")):
        text = (tmp_path / "index.jsonl").read_text()
        (tmp_path / "index.jsonl").write_text(text.replace(old, new))
        pool = PoolWriter(tmp_path)
        assert len(pool) == 0
        pool.append(shards())
        pool.close()
