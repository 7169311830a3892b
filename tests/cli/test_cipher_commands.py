"""keygen, encrypt, decrypt, ciphers and gallery, as a user types them."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from fedenc.ciphers import make, names
from fedenc.cli import app
from fedenc.errors import CipherError, DataError, FedencError, KeyfileError
from fedenc.keys import KeyRing
from simulations.cli import execute


def run(*arguments: object, succeed: bool = True, **options: str) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments], **options)
    if succeed:
        assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    generator = np.random.default_rng(0)
    for index, size in enumerate([(1, 1, 3), (13, 40, 3), (31, 17, 3)]):
        pixels = generator.integers(0, 256, size).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{index}.png")
    return root


@pytest.fixture
def key(tmp_path: Path) -> Path:
    run("keygen", tmp_path / "key")
    return tmp_path / "key"


def same(one: Path, other: Path) -> bool:
    with Image.open(one) as a, Image.open(other) as b:
        return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


def test_keygen_shows_a_fingerprint_and_never_the_key(tmp_path: Path) -> None:
    result = run("keygen", tmp_path / "key", "--participant", 4)
    ring = KeyRing.load(tmp_path / "key")
    assert ring.participant == 4
    assert ring.fingerprint in result.output
    assert ring._master.hex() not in result.output
    again = run("keygen", tmp_path / "key", succeed=False)
    assert isinstance(again.exception, KeyfileError)
    assert KeyRing.load(tmp_path / "key") == ring


@pytest.mark.parametrize("name", names())
def test_folders_come_back(photos: Path, key: Path, tmp_path: Path, name: str) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    result = run("encrypt", photos, sent, "--cipher", name, "--keyfile", key)
    assert "encrypted 3 files" in result.output
    assert (
        "3 there already" in run("encrypt", photos, sent, "--cipher", name, "--keyfile", key).output
    )
    assert "decrypted 3 files" in run("decrypt", sent, back, "--keyfile", key).output
    if make(name).exact:
        assert all(same(path, back / path.name) for path in photos.iterdir())


def test_parameters_policies_and_formats(photos: Path, key: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    options = "--cipher etc -p block_size=8 -p color_shuffle=false --keys client --format webp"
    run("encrypt", photos, sent, *options.split(), "--keyfile", key)
    text = (sent / "fedenc-manifest.jsonl").read_text()
    assert '"block_size": 8, "color_shuffle": false' in text
    assert '"policy": "client"' in text
    assert len(list(sent.glob("*.webp"))) == 3
    run("decrypt", sent, tmp_path / "back", "--keyfile", key)
    assert same(photos / "1.png", tmp_path / "back" / "1.png")


def test_failed_files_are_listed_and_tell_by_exit_code(
    photos: Path, key: Path, tmp_path: Path
) -> None:
    (photos / "bad.png").write_bytes(b"not a picture")
    result = run("encrypt", photos, tmp_path / "sent", "--keyfile", key, succeed=False)
    assert result.exit_code == 1
    assert "encrypted 3 files" in result.output
    assert "bad.png: no image format" in result.output


def test_passphrases(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedenc.keys.keyfile._SCRYPT", {"n": 2**12, "r": 8, "p": 1})
    sealed = tmp_path / "sealed"
    run("keygen", sealed, "--passphrase", input="open\nopen\n")
    assert "sealed" in sealed.read_text()
    typed = run("encrypt", photos, tmp_path / "a", "--keyfile", sealed, input="open\n")
    assert "open" not in typed.output
    wrong = run(
        "encrypt", photos, tmp_path / "b", "--keyfile", sealed, input="shut\n", succeed=False
    )
    assert "passphrase is wrong" in str(wrong.exception)
    missing = run("decrypt", tmp_path / "a", tmp_path / "c", "--keyfile", sealed, succeed=False)
    assert "FEDENC_PASSPHRASE" in str(missing.exception)
    monkeypatch.setenv("FEDENC_PASSPHRASE", "open")
    run("decrypt", tmp_path / "a", tmp_path / "c", "--keyfile", sealed)
    assert same(photos / "2.png", tmp_path / "c" / "2.png")


BAD: list[tuple[str, type[FedencError], str]] = [
    ("encrypt {photos} {out} --keyfile {out}", KeyfileError, "does not exist; make one with"),
    ("encrypt {photos} {out} --keyfile {key} --cipher x", CipherError, "there is no cipher 'x'"),
    ("encrypt {photos} {out} --keyfile {key} -p x", CipherError, "a parameter is 'x'"),
    ("encrypt {photos} {out} --keyfile {key} -p x=1", CipherError, "no parameter 'x'"),
    ("encrypt {photos} {out} --keyfile {key} --keys x", CipherError, "--keys is 'x'"),
    ("encrypt {photos} {out} --keyfile {key} --format jpg", CipherError, "not a lossless"),
    ("encrypt {photos}/1.png {out}.jpg --keyfile {key}", CipherError, "not a lossless"),
    ("encrypt {out} {out}2 --keyfile {key}", DataError, "does not exist"),
    ("decrypt {photos} {out} --keyfile {key}", DataError, "there is no manifest"),
    ("ciphers --size 3", CipherError, "--size is '3', expected HEIGHTxWIDTH"),
    ("gallery {photos}/1.png --out {out}.jpg", CipherError, "not a lossless"),
    ("gallery {photos}/9.png --out {out}.png", DataError, "does not exist"),
    ("gallery {photos}/1.png --out {out}.png --cipher x", CipherError, "no cipher 'x'"),
]


@pytest.mark.parametrize(("line", "kind", "message"), BAD, ids=[b[0] for b in BAD])
def test_mistakes(
    photos: Path, key: Path, tmp_path: Path, line: str, kind: type, message: str
) -> None:
    words = line.format(photos=photos, key=key, out=tmp_path / "out").split()
    result = run(*words, succeed=False)
    assert isinstance(result.exception, kind), result.output
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_ciphers_lists_every_cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    output = run("ciphers", "--size", "32x32").output
    for name in names():
        line = next(line for line in output.splitlines() if line.split()[:1] == [name])
        assert f"2^{make(name).key_space_log2(3, 32, 32):.1f}" in line
    assert "visual protection" in output
    assert "2^829.6" in run("ciphers", "--size", "96×96").output


def test_gallery_writes_a_picture(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    result = run("gallery", photos / "1.png", photos / "2.png", "--out", out)
    assert f"{len(names()) - 1} ciphers, 2 images" in result.output
    with Image.open(out) as sheet:
        assert sheet.size == (110 + 4 * 136 + 8, len(names()) * 154 + 26)


def test_the_fedenc_command_has_these_commands(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line and the error's exit code."""
    words = ["encrypt", str(photos), str(tmp_path / "o"), "--keyfile", str(tmp_path / "none")]
    assert execute(words) == KeyfileError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fedenc: keyfile ")


def test_what_the_machine_refuses_is_one_line(
    photos: Path, key: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Folders that cannot be made, because a file is in the way."""
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    for words in (
        ["encrypt", str(photos), str(below), "--keyfile", str(key)],
        ["encrypt", str(photos / "0.png"), str(below / "x.png"), "--keyfile", str(key)],
        ["simulate", "--out", str(below)],
        ["simulate", "--out", str(tmp_path / "file")],
        ["transformation", "train", str(below)],
        ["gallery", str(photos / "1.png"), "--out", str(below / "x.png"), "--cipher", "pixel"],
        ["simulate", str(tmp_path)],
        ["predict", str(below), str(photos / "0.png")],
        ["attack", str(below)],
        ["report", str(below)],
    ):
        code = execute(words)
        error = capfd.readouterr().err
        assert code not in (0, 70), (words, error)
        assert error.startswith("fedenc: "), words
        assert error.count("\n") == 1, words


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_scenario_nested_too_deeply_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    path = tmp_path / f"deep.{suffix}"
    path.write_text({"toml": "a = ", "json": ""}[suffix] + "[" * 100_000)
    assert execute(["simulate", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nested too deeply" in error
