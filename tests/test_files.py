"""Atomic writing: the old content or the new, and nothing left beside it."""

import os
from pathlib import Path

import pytest

from fedenc.errors import DataError
from fedenc.files import write_atomically


def test_writes_replaces_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for content in (b"one", b"", b"two" * 1000):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failure_at_any_step_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(step, fail)
    with pytest.raises(DataError, match="no space"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_flushed_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "file", []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(path.exists()), real(fd))[1])
    write_atomically(path, b"content")
    assert synced[0] is False


def test_private_from_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = os.fsync

    def watch(fd: int) -> None:
        modes.append(os.fstat(fd).st_mode & 0o777)
        real(fd)

    monkeypatch.setattr(os, "fsync", watch)
    before = os.umask(0)
    try:
        write_atomically(tmp_path / "secret", b"x", mode=0o600)
    finally:
        os.umask(before)
    assert modes[0] == 0o600
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
