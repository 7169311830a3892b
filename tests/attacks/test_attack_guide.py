"""The attack that the documentation shows, installed for real and used like a built-in one."""

import json
from pathlib import Path

from plugin_package import ROOT, documented, install, python

GUIDE = ROOT / "docs" / "attacks.md"


def test_the_documented_attack_works_like_a_built_in(tmp_path: Path) -> None:
    code = documented(GUIDE, "python")
    assert len(code.splitlines()) <= 40
    group, entry = documented(GUIDE, "toml").split("\n")[:2]
    assert group == '[project.entry-points."fedenc.attacks"]'
    install(tmp_path, "nearest_public", code, entry.replace('"', ""), "fedenc.attacks")
    listed = python(tmp_path, "-m", "simulations.cli", "attacks")
    assert listed.returncode == 0, listed.stderr
    assert "nearest-public" in listed.stdout
    command = [
        "attack",
        "--cipher",
        "etc",
        "--images",
        "40",
        "--public",
        "150",
        "--attacks",
        "nearest-public",
    ]
    out = tmp_path / "out"
    done = python(tmp_path, "-m", "simulations.cli", *command, "--out", str(out))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((out / "attacks.json").read_text())["rows"]
    assert row["status"] == "done"
    # It shows true images, and often of the right photograph.
    assert row["edges_low"] > row["control"]["ciphertext"]["edges"] - 0.1
    assert row["rank"] < row["control"]["another"]["rank_high"]
