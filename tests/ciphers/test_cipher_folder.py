"""Files and folders: every byte comes back, whatever is wrong with the neighbours."""

import json
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image

from fedenc import documents
from fedenc.ciphers import make
from fedenc.ciphers.files import encryption, manifest
from fedenc.errors import CipherError, DataError, EngineError, FedencError, KeyfileError
from fedenc.files import FileSummary
from fedenc.images import lossless
from fedenc.images.decode import decode
from fedenc.keys import POLICIES, KeyRing

RING = KeyRing(bytes(range(32)), 2)
SIZES = [(1, 1), (2, 9), (33, 17), (64, 64), (131, 257)]


def picture(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    channels = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels))
    if mode == "RGBA":
        values[..., 3] = 255
    return Image.fromarray(
        values.astype(np.uint8).squeeze(-1) if mode == "L" else values.astype(np.uint8)
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "deep" / "er").mkdir(parents=True)
    for seed, (height, width) in enumerate(SIZES):
        picture(height, width, seed=seed).save(root / "deep" / f"{height}x{width}.png")
    picture(20, 31, "L").save(root / "gray.png")
    picture(12, 12, "RGBA").save(root / "opaque.png")
    picture(9, 5).save(root / "deep" / "er" / "b.bmp")
    picture(9, 6).save(root / "c.webp", lossless=True)
    picture(14, 10).save(root / "d.jpg")
    (root / "notes.txt").write_text("not an image")
    return root


def pixels(path: Path) -> tuple[str, bytes]:
    with Image.open(path) as file:
        return file.mode, file.tobytes()


def images(root: Path) -> dict[str, tuple[str, bytes]]:
    found = sorted(p for p in root.rglob("*") if p.suffix in (".png", ".bmp", ".webp", ".jpg"))
    return {p.relative_to(root).as_posix(): pixels(p) for p in found}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["pixel", "etc", "le", "scramble", "none"])
def test_every_byte_comes_back(photos: Path, tmp_path: Path, name: str, policy) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    report = encryption.encrypt(photos, sent, make(name), RING, policy=policy)
    assert report == FileSummary(10, 0, ())
    assert encryption.decrypt(sent, back, RING) == FileSummary(10, 0, ())
    expected, found = images(photos), images(back)
    expected["d.jpg.png"] = expected.pop("d.jpg")
    assert found == expected
    if name != "none":
        hidden = images(sent)
        assert hidden["deep/64x64.png"] != expected["deep/64x64.png"]


@pytest.mark.parametrize("suffix", [".webp", ".bmp"])
@pytest.mark.parametrize("name", ["pixel", "etc-gray"])
def test_other_lossless_formats(photos: Path, tmp_path: Path, suffix: str, name: str) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    assert not encryption.encrypt(photos, sent, make(name), RING, suffix=suffix).failed
    assert {p.suffix for p in sent.rglob("*.*")} == {suffix, ".jsonl"}
    assert not encryption.decrypt(sent, back, RING).failed
    expected, found = images(photos), images(back)
    expected["d.jpg.png"] = expected.pop("d.jpg")
    for file, (mode, data) in expected.items():
        assert found[file][0] == mode
        difference = np.frombuffer(data, np.uint8) - np.frombuffer(found[file][1], np.uint8).astype(
            int
        )
        assert abs(difference).max() <= (0 if name == "pixel" else 2)


def test_processes_change_nothing(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    encryption.encrypt(
        photos,
        tmp_path / "sent",
        make("pixel"),
        RING,
        processes=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 10) for i in range(1, 11)]
    encryption.decrypt(tmp_path / "sent", tmp_path / "back", RING, processes=1)
    assert images(tmp_path / "back")["gray.png"] == images(photos)["gray.png"]


_FIELDS = {"file", "source", "id", "shape", "mode", "digest", "check"}


def test_manifest_holds_public_parameters_only(photos: Path, tmp_path: Path) -> None:
    encryption.encrypt(photos, tmp_path / "sent", make("etc", block_size=8), RING)
    text = (tmp_path / "sent" / manifest.NAME).read_text()
    first, *rest = (json.loads(line) for line in text.splitlines())
    assert first["cipher"] == "etc"
    assert first["params"] == make("etc", block_size=8).params()
    known = {"format", "version", "cipher", "params", "policy", "nonce", "key_check", "check"}
    assert set(first) == known
    assert all(set(line) == _FIELDS for line in rest)
    assert len({line["id"] for line in rest}) == len(rest) == 10
    assert bytes(range(32)).hex() not in text
    assert RING.fingerprint not in text


def test_two_runs_share_no_keys(photos: Path, tmp_path: Path) -> None:
    for run in ("one", "two"):
        encryption.encrypt(photos, tmp_path / run, make("pixel"), RING)
    one, two = images(tmp_path / "one"), images(tmp_path / "two")
    assert all(one[name] != two[name] for name in one if name != "deep/1x1.png")
    assert (
        len(
            {
                json.loads((tmp_path / r / manifest.NAME).read_text().splitlines()[0])["nonce"]
                for r in ("one", "two")
            }
        )
        == 2
    )


def test_one_bad_file_does_not_stop_the_rest(photos: Path, tmp_path: Path) -> None:
    (photos / "empty.png").write_bytes(b"")
    (photos / "torn.png").write_bytes((photos / "gray.png").read_bytes()[:300])
    glass = picture(4, 4, "RGBA")
    glass.putalpha(100)
    glass.save(photos / "glass.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(photos / "deep16.png")
    report = encryption.encrypt(photos, tmp_path / "sent", make("pixel"), RING)
    assert report.done == 10
    reasons = {Path(name).name: reason for name, reason in report.failed}
    assert set(reasons) == {"empty.png", "torn.png", "glass.png", "deep16.png"}
    assert "cannot decode" in reasons["torn.png"]
    assert "transparent" in reasons["glass.png"]
    assert "8-bit" in reasons["deep16.png"]
    assert not list((tmp_path / "sent").rglob("*.part"))


def test_damaged_ciphertexts_are_listed(photos: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    encryption.encrypt(photos, sent, make("pixel"), RING)
    (sent / "gray.png").unlink()
    picture(5, 5).save(sent / "opaque.png")
    report = encryption.decrypt(sent, tmp_path / "back", RING)
    assert report.done == 8
    reasons = {Path(name).name: reason for name, reason in report.failed}
    assert "does not exist" in reasons["gray.png"]
    assert "does not hold the ciphertext" in reasons["opaque.png"]


def test_interrupted_runs_go_on(photos: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encryption.encrypt(photos, sent, make("pixel"), RING, progress=stop)
    record = sent / manifest.NAME
    record.write_text(record.read_text() + '{"file": "half a li')
    before = {p.name: p.stat().st_mtime_ns for p in sent.rglob("*.png")}
    assert encryption.encrypt(photos, sent, make("pixel"), RING) == FileSummary(6, 4, ())
    assert all(
        p.stat().st_mtime_ns == before.get(p.name, p.stat().st_mtime_ns)
        for p in sent.rglob("*.png")
    )
    assert encryption.encrypt(photos, sent, make("pixel"), RING) == FileSummary(0, 10, ())
    (sent / "gray.png").unlink()
    assert encryption.encrypt(photos, sent, make("pixel"), RING) == FileSummary(1, 9, ())
    back = tmp_path / "back"
    with pytest.raises(KeyboardInterrupt):
        encryption.decrypt(sent, back, RING, progress=stop)
    assert encryption.decrypt(sent, back, RING) == FileSummary(6, 4, ())
    assert images(back)["gray.png"] == images(photos)["gray.png"]


def test_going_on_needs_the_same_key_and_method(photos: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    encryption.encrypt(photos, sent, make("pixel"), RING)
    with pytest.raises(KeyfileError, match="not the one these images were encrypted with"):
        encryption.encrypt(photos, sent, make("pixel"), KeyRing.generate())
    with pytest.raises(CipherError, match="encrypted with cipher pixel, asked is etc"):
        encryption.encrypt(photos, sent, make("etc"), RING)
    with pytest.raises(CipherError, match="encrypted with policy image, asked is same"):
        encryption.encrypt(photos, sent, make("pixel"), RING, policy="same")
    for ring in (KeyRing.generate(2), RING.for_participant(3)):
        with pytest.raises(KeyfileError, match=ring.fingerprint):
            encryption.decrypt(sent, tmp_path / "back", ring)


def test_single_files(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "hidden.png"
    assert encryption.encrypt(photos / "gray.png", target, make("pixel"), RING).done == 1
    assert (tmp_path / "hidden.png.fedenc.jsonl").exists()
    back = tmp_path / "back.bmp"
    assert encryption.decrypt(target, back, RING).done == 1
    assert pixels(back) == pixels(photos / "gray.png")
    for again in (
        lambda: encryption.encrypt(photos / "gray.png", target, make("pixel"), RING),
        lambda: encryption.decrypt(target, back, RING),
    ):
        with pytest.raises(DataError, match="exists and would be overwritten"):
            again()
    (photos / "bad.png").write_bytes(b"x")
    report = encryption.encrypt(photos / "bad.png", tmp_path / "bad.png", make("pixel"), RING)
    assert len(report.failed) == 1
    assert not (tmp_path / "bad.png.fedenc.jsonl").exists()


def test_single_files_of_folders(photos: Path, tmp_path: Path) -> None:
    sent, into = tmp_path / "sent", tmp_path / "into"
    encryption.encrypt(photos, sent, make("pixel"), RING)
    into.mkdir()
    assert encryption.decrypt(sent / "deep" / "er" / "b.bmp.png", into, RING).done == 1
    assert pixels(into / "b.bmp") == pixels(photos / "deep" / "er" / "b.bmp")
    assert encryption.encrypt(photos / "d.jpg", into, make("pixel"), RING).done == 1
    assert (into / "d.png").exists()


@pytest.mark.parametrize("target", ["x.jpg", "x.jpeg", "x.gif", "x"])
def test_lossy_formats_are_refused(photos: Path, tmp_path: Path, target: str) -> None:
    with pytest.raises(CipherError, match=r"not a lossless image format.* use one of \.png"):
        encryption.encrypt(photos / "gray.png", tmp_path / target, make("pixel"), RING)
    with pytest.raises(CipherError, match="not a lossless image format"):
        encryption.encrypt(
            photos, tmp_path / "sent", make("pixel"), RING, suffix=Path(target).suffix
        )
    assert not (tmp_path / "sent").exists()


def test_unusable_folders(photos: Path, tmp_path: Path) -> None:
    cipher = make("pixel")
    (tmp_path / "nothing").mkdir()
    cases = [
        (tmp_path / "none", tmp_path / "a", "does not exist"),
        (tmp_path / "nothing", tmp_path / "a", r"holds no \.png"),
        (photos, photos / "sent", "lies inside"),
        (photos, photos, "lies inside"),
        (photos / "deep", photos, "not an empty folder and holds no manifest"),
    ]
    for source, target, message in cases:
        with pytest.raises(DataError, match=message):
            encryption.encrypt(source, target, cipher, RING)
    picture(3, 3).save(photos / "b.bmp")
    picture(3, 3).save(photos / "b.bmp.png")
    with pytest.raises(DataError, match=r"two images would both become b\.bmp\.png"):
        encryption.encrypt(photos, tmp_path / "sent", cipher, RING)
    with pytest.raises(DataError, match="there is no manifest"):
        encryption.decrypt(photos, tmp_path / "back", RING)


def mended(number: int, line: str) -> str:
    """A line of a manifest with the right checksum, if it is JSON."""
    try:
        values = documents.parse(line)
    except ValueError:
        return line
    del values["check"]
    return json.dumps(values | {"check": manifest._checksum(number, values)})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"color_shuffle": true', '"color_shuffle": false'),
        ('"policy": "image"', '"policy": "same"'),
        ('"id": 1', '"id": 2'),
        ('"mode": "RGB"', '"mode": "L"'),
    ],
)
def test_a_changed_manifest_is_noticed(photos: Path, tmp_path: Path, old: str, new: str) -> None:
    sent = tmp_path / "sent"
    encryption.encrypt(photos, sent, make("pixel"), RING)
    record = sent / manifest.NAME
    text = record.read_text().replace('"id": ', '"id": 1')
    lines = [mended(n, line) + "\n" for n, line in enumerate(text.splitlines(), start=1)]
    assert any(old in line for line in lines)
    record.write_text("".join(lines).replace(old, new))
    with pytest.raises(DataError, match="damaged in line"):
        encryption.decrypt(sent, tmp_path / "back", RING)
    for left in (lines[:3] + lines[4:], lines[:1] + lines[2:1:-1] + lines[3:]):
        record.write_text("".join(left))
        with pytest.raises(DataError, match="damaged in line"):
            encryption.decrypt(sent, tmp_path / "back", RING)


def test_images_that_the_manifest_lost_are_told(photos: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    encryption.encrypt(photos, sent, make("pixel"), RING)
    record = sent / manifest.NAME
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-2]))
    report = encryption.decrypt(sent, tmp_path / "back", RING)
    assert report.done == 8
    assert [reason for _, reason in report.failed if "does not list it" in reason]
    assert len(report.failed) == 2


def test_a_changed_pixel_is_noticed(photos: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    encryption.encrypt(photos, sent, make("pixel"), RING, suffix=".bmp")
    path = sent / "deep" / "64x64.png.bmp"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ((name, reason),) = encryption.decrypt(sent, tmp_path / "back", RING).failed
    assert name == str(path)
    assert "restore it from a copy" in reason
    assert not (tmp_path / "back" / "deep" / "64x64.png").exists()


def test_one_process_encrypts_into_a_folder(photos: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    refused = list[str]()

    def again(done: int, total: int) -> None:
        with pytest.raises(EngineError) as error:
            encryption.encrypt(photos, sent, make("pixel"), RING)
        refused.append(str(error.value))

    assert encryption.encrypt(photos, sent, make("pixel"), RING, progress=again).done == 10
    assert refused == [f"another process is encrypting into {sent}; wait for it to end"] * 10
    assert encryption.encrypt(photos, sent, make("pixel"), RING).skipped == 10


_KILLED = """
import os, signal, sys
from pathlib import Path
from fedenc.ciphers import make
from fedenc.ciphers.files import encryption
from fedenc.keys import KeyRing
encryption.encrypt(
    Path(sys.argv[1]), Path(sys.argv[2]), make("pixel"), KeyRing(bytes(range(32)), 2),
    progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == 3 else None,
)
"""


def test_a_killed_process_leaves_no_lock(photos: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    words = [sys.executable, "-c", _KILLED, str(photos), str(sent)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert encryption.encrypt(photos, sent, make("pixel"), RING) == FileSummary(7, 3, ())
    encryption.decrypt(sent, tmp_path / "back", RING)
    assert images(tmp_path / "back")["gray.png"] == images(photos)["gray.png"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format": "fedenc', '"format": "another', "not a manifest of format"),
        ('"version": 3', '"version": 1', "has version 1, this program reads 3"),
        ('"cipher": "pixel"', '"cipher": "pixels"', "there is no cipher 'pixels'"),
        ('"color_shuffle": true', '"color": true', "has no parameter 'color'"),
        ('"policy": "image"', '"policy": "all"', "damaged in line 1"),
        ('"nonce": "', '"nonce": "zz', "damaged in line 1"),
        ('"mode": "RGB",', '"mode": "RGB"', "damaged in line"),
        ('"source": "gray.png"', '"source": "../gray.png"', "outside its folder"),
        ('"source": "gray.png"', '"source": "/gray.png"', "outside its folder"),
        ('"shape": [3', '"shape": ["x"', "damaged in line"),
        ('"id": ', '"id": -', "damaged in line"),
        ('"shape": [3', '"shape": [3.5', "damaged in line"),
        ('"shape": [3', '"shape": [Infinity', "damaged in line"),
        ('"params": {', '"params": ' + "[" * 100_000 + "{", "damaged in line"),
    ],
)
def test_forged_manifests(photos: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    """Checksums do not keep anyone from writing what they like."""
    sent = tmp_path / "sent"
    encryption.encrypt(photos, sent, make("pixel"), RING)
    record = sent / manifest.NAME
    text = record.read_text()
    assert old in text
    lines = text.replace(old, new).splitlines()
    record.write_text("".join(f"{mended(n, line)}\n" for n, line in enumerate(lines, start=1)))
    with pytest.raises(FedencError, match=message):
        encryption.decrypt(sent, tmp_path / "back", RING)
    shutil.rmtree(sent)


def test_a_left_manifest_is_not_joined_to_another_image(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "hidden.png"
    encryption.encrypt(photos / "gray.png", target, make("pixel"), RING)
    target.unlink()
    with pytest.raises(DataError, match=r"hidden\.png\.fedenc\.jsonl exists"):
        encryption.encrypt(photos / "gray.png", target, make("pixel"), RING)
    assert not target.exists()


def test_two_images_that_would_decrypt_to_one_are_refused(photos: Path, tmp_path: Path) -> None:
    picture(3, 3).save(photos / "d.jpg.png")
    with pytest.raises(DataError, match=r"two images would both become d\.jpg\.png"):
        encryption.encrypt(photos, tmp_path / "sent", make("pixel"), RING, suffix=".webp")
    assert not (tmp_path / "sent").exists()


def _deep_png(path: Path) -> None:
    """2×1 pixels of 16 bits a channel, which Pillow can read but not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    rows = compress(b"\0" + bytes(range(12)))
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_what_eight_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    _deep_png(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        lossless.read(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        decode(tmp_path / "deep.png", "deep.png")
    gray = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    gray.save(tmp_path / "glass.png", transparency=3)
    with pytest.raises(DataError, match="transparent in places"):
        lossless.read(tmp_path / "glass.png")
    gray.save(tmp_path / "opaque.png", transparency=200)
    image, mode = lossless.read(tmp_path / "opaque.png")
    assert (image.shape, mode) == ((1, 4, 4), "L")
