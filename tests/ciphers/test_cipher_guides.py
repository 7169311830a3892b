"""The plug-in that the documentation shows, installed for real and used like a built-in."""

import re
from pathlib import Path

from plugin_package import documented, install, python

from fedenc.ciphers import make, names

GUIDE = Path(__file__).parents[2] / "docs" / "plugins.md"

USE = """
import numpy as np, torch
from fedenc.ciphers import make, names
from fedenc.errors import CipherError
from fedenc.keys import KeyRing

assert names()[-1] == "row-roll", names()
cipher = make("row-roll", reach=5)
assert cipher.params() == {"reach": 5}
assert make("row-roll", **cipher.params()) == cipher
plain = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 9, 7), dtype=np.uint8))
for policy in ("same", "client", "image"):
    keys = KeyRing(bytes(32)).keystream(
        method="row-roll", policy=policy, purpose="t", nonce=bytes(16), ids=np.arange(6)
    )
    found = cipher.encrypt(plain, keys)
    assert not torch.equal(found, plain)
    assert torch.equal(found.sort(dim=3).values, plain.sort(dim=3).values)
    assert torch.equal(cipher.decrypt(found, keys), plain)
assert cipher.effective_bits(3, 9, 7) < 21
try:
    make("row-roll", reach=0)
except CipherError as error:
    assert "reach is 0" in str(error)
else:
    raise AssertionError
"""


def test_the_documented_plug_in_works_like_a_built_in(tmp_path: Path) -> None:
    code = documented(GUIDE, "python")
    assert len(code.splitlines()) <= 40
    entry = re.fullmatch(
        r'\[project.entry-points."fedenc.ciphers"\]\nrow-roll = "row_roll:RowRoll"\n',
        documented(GUIDE, "toml"),
    )
    assert entry
    install(tmp_path, "row_roll", code, "row-roll = row_roll:RowRoll", "fedenc.ciphers")
    done = python(tmp_path, "-c", USE)
    assert done.returncode == 0, done.stderr


BROKEN = {
    "first": ("import nowhere", "plug-in cipher 'first' does not load"),
    "second": ("X = 3", "plug-in cipher 'second' is 3; expected a dataclass"),
    "third": (
        "from fedenc.ciphers.pixel import Pixel as X",
        "plug-in 'third' holds a cipher that calls itself 'pixel'",
    ),
}
USE_BROKEN = """
from fedenc.ciphers import make, names
from fedenc.errors import CipherError

make("pixel")
for name in names()[-3:]:
    try:
        make(name)
    except CipherError as error:
        print(error)
"""


def test_broken_plug_ins_are_reported_when_used(tmp_path: Path) -> None:
    for name, (code, _) in BROKEN.items():
        install(tmp_path, f"broken_{name}", code, f"{name} = broken_{name}:X", "fedenc.ciphers")
    done = python(tmp_path, "-c", USE_BROKEN)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line, (_, message) in zip(lines, BROKEN.values(), strict=True):
        assert line.startswith(message)


def test_the_code_in_the_documentation_runs(tmp_path: Path) -> None:
    guide = (GUIDE.parent / "ciphers.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", guide, re.DOTALL))
    assert "Encrypt" in code
    done = python(tmp_path, "-c", code.replace('"my.key"', repr(str(tmp_path / "key"))))
    assert done.returncode == 0, done.stderr


def test_the_documentation_lists_every_cipher() -> None:
    guide = (GUIDE.parent / "ciphers.md").read_text()
    for name in names():
        assert f"| `{name}` |" in guide
        bits = make(name).key_space_log2(3, 32, 32)
        row = next(line for line in guide.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"2^{bits:.0f} |" in row
        assert all(f"`{key}`" in row for key in make(name).params())
