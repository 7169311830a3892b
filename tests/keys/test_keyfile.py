"""Keyfiles: private, never overwritten, and clear about what is wrong with them."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from fedenc.errors import KeyfileError
from fedenc.keys import KeyRing, keyfile

RING = KeyRing(bytes(range(32)), 3)


@pytest.fixture(autouse=True)
def fast_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedenc.keys.keyfile._SCRYPT", {"n": 2**12, "r": 8, "p": 1})


@pytest.mark.parametrize("passphrase", [None, "correct horse", "ключ"])
def test_round_trip_and_mode(tmp_path: Path, passphrase: str | None) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        RING.save(path, passphrase)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing.load(path, passphrase) == RING


def test_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    RING.save(path)
    with pytest.raises(KeyfileError, match="never overwritten"):
        KeyRing.generate().save(path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeyfileError, match="never overwritten"):
        RING.save(link)
    assert KeyRing.load(path) == RING


def test_passphrase_hides_the_master(tmp_path: Path) -> None:
    RING.save(tmp_path / "plain")
    RING.save(tmp_path / "sealed", "secret")
    assert bytes(range(32)).hex() in (tmp_path / "plain").read_text()
    assert bytes(range(32)).hex() not in (tmp_path / "sealed").read_text()
    with pytest.raises(KeyfileError, match="protected by a passphrase"):
        KeyRing.load(tmp_path / "sealed")
    with pytest.raises(KeyfileError, match="passphrase is wrong"):
        KeyRing.load(tmp_path / "sealed", "Secret")
    with pytest.raises(KeyfileError, match="passphrase is empty"):
        RING.save(tmp_path / "empty", "")
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("passphrase", [None, "secret"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("participant", 4),
        ("participant", "x"),
        ("fingerprint", "0" * 16),
        ("master", "00" * 32),
        ("master", "00"),
        ("master", "zz"),
        ("sealed", "00" * 48),
        ("salt", "00" * 16),
        ("nonce", "00"),
        ("n", 2**40),
        ("n", "many"),
        ("kdf", "argon"),
        ("checksum", "0" * 16),
    ],
)
def test_changed_fields_are_noticed(
    tmp_path: Path, passphrase: str | None, field: str, value: object
) -> None:
    path = tmp_path / "key"
    RING.save(path, passphrase)
    content = json.loads(path.read_text())
    if field not in content:
        pytest.skip("this kind of keyfile has no such field")
    for changed in (content | {field: value}, {k: v for k, v in content.items() if k != field}):
        path.write_text(json.dumps(changed))
        with pytest.raises(KeyfileError, match="damaged"):
            KeyRing.load(path, passphrase)


@pytest.mark.parametrize("field", ["participant", "fingerprint", "sealed", "salt"])
def test_sealed_keyfiles_are_authenticated(tmp_path: Path, field: str) -> None:
    """A change that mends the checksum too does not get past the seal."""
    path = tmp_path / "key"
    RING.save(path, "secret")
    content = json.loads(path.read_text())
    del content["checksum"]
    value = content[field]
    content[field] = value * 2 if isinstance(value, int) else "00" + value[2:]
    content["checksum"] = keyfile._checksum(content)
    path.write_text(json.dumps(content))
    with pytest.raises(KeyfileError, match="does not open"):
        KeyRing.load(path, "secret")


def forged(path: Path, **changes: object) -> None:
    """Change fields of a keyfile, and mend its checksum."""
    content = json.loads(path.read_text()) | changes
    del content["checksum"]
    content["checksum"] = keyfile._checksum(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("changes", [{"n": 2**19}, {"r": 2}, {"p": 2**18}, {"n": 4096.0}])
def test_only_our_own_cost_of_a_passphrase_is_paid(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "key"
    RING.save(path, "secret")
    forged(path, **changes)
    with pytest.raises(KeyfileError, match="scrypt has the parameters"):
        KeyRing.load(path, "secret")


@pytest.mark.parametrize("participant", [1.7, True, "7", None, [1], -1, 2**63, 10**400])
def test_participants_are_whole_numbers(tmp_path: Path, participant: object) -> None:
    path = tmp_path / "key"
    RING.save(path)
    forged(path, participant=participant)
    with pytest.raises(KeyfileError, match="participant"):
        KeyRing.load(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_keyfile_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    RING.save(path)
    path.chmod(mode)
    with pytest.raises(KeyfileError, match=f"mode {mode:04o}.*chmod 600"):
        KeyRing.load(path)
    path.chmod(0o400)
    assert KeyRing.load(path) == RING


def test_a_passphrase_protects_what_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    RING.save(path, "secret")
    path.chmod(0o644)
    assert KeyRing.load(path, "secret") == RING


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a keyfile"),
        ("[]", "not a keyfile"),
        ('{"format": "other"}', "not a keyfile"),
        ('{"format": "fedenc keyfile", "version": 2}', "version 2, this program reads 1"),
        ("\udcff", "not a keyfile"),
        ("[" * 60_000, "not a keyfile"),
        ('{"format": "fedenc keyfile", "version": Infinity}', "not a keyfile"),
        ('{"format": "fedenc keyfile", "version": 1, "checksum": []}', "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(KeyfileError, match=message):
        KeyRing.load(path)


def test_unreachable_paths(tmp_path: Path) -> None:
    with pytest.raises(KeyfileError, match="does not exist; make one with: fedenc keygen"):
        KeyRing.load(tmp_path / "none")
    with pytest.raises(KeyfileError, match="cannot be read"):
        KeyRing.load(tmp_path)
    with pytest.raises(KeyfileError, match="cannot be written"):
        RING.save(tmp_path / "no" / "folder")
