"""``fedenc attack`` on runs and methods: what it writes, how it ends, and what it refuses."""

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import pytest

from fedenc.errors import AttackError
from simulations import attack, cli, secret

COMMON = [
    "--images",
    "24",
    "--public",
    "120",
    "--set",
    "clients.images=20",
]


def run(*arguments: str) -> int:
    with mock.patch.dict(os.environ, {secret.VARIABLE: "3"}):
        return cli.execute(["attack", *arguments])


def facts(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "attacks.json").read_text())
    return content


def test_a_method_is_attacked_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    names = "observe,link,known-pairs:pairs=3,jigsaw"
    arguments = ["--cipher", "pixel", "--keys", "same", "--attacks", names, "--out", str(out)]
    assert run(*arguments, *COMMON) == 0
    found = {row["attack"]: row for row in facts(out)["rows"]}
    assert found["link"]["linked"] == 1
    assert found["link"]["false_links"] == 0
    assert found["known-pairs"]["params"]["pairs"] == 3
    assert found["known-pairs"]["key_recovered"] > 0.9
    assert (
        found["observe"]["ssim_uniform7"] > found["observe"]["control"]["another"]["ssim_uniform7"]
    )
    assert found["jigsaw"]["status"] == "does not apply"
    assert "jigsaw: does not apply" in capsys.readouterr().out
    table = pq.read_table(out / "attacks.parquet").to_pylist()
    assert {row["estimate"] for row in table} == {"attack", "ciphertext", "constant", "another"}
    page = (out / "report.html").read_text()
    assert "known-pairs" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "needs nothing else"
    assert cli.execute(["report", str(out)]) == 0
    assert (out / "report.html").read_text() == page


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--cipher", "scramble", "--attacks", "observe", "--out", str(out), *COMMON]
    assert run(*arguments) == 0
    first = facts(out)["rows"]
    assert run(*arguments) == 0
    assert facts(out)["rows"] == first, "its time too"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cipher", "pixle"], "encryption.cipher = 'pixle'; known are"),
        (
            ["--cipher", "le", "--attacks", "fr-advanced"],
            "none of the attacks applies: fr-advanced",
        ),
        (["--cipher", "le", "--attacks", "guess"], "there is no attack 'guess'; known are observe"),
        (["--cipher", "le", "--attacks", "itn:epoch=3"], "has no parameter 'epoch'"),
        (["--cipher", "le", "--keys", "some"], "encryption.keys = 'some'"),
        ([], "name either the folder of a run or a method"),
        (["nowhere", "--cipher", "le"], "name either the folder of a run or a method"),
        (["nowhere"], "nowhere holds no result.json"),
        (["nowhere", "--set", "seed=1"], "--set changes a method's scenario"),
        (["--cipher", "none"], "nobody uploaded protected images"),
    ],
)
def test_what_cannot_be_attacked_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) != 0
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_names_become_attacks_with_parameters() -> None:
    assert {one.name for one in attack.chosen("quick")} >= {"observe", "link"}
    assert len(attack.chosen("all")) > 15
    (one,) = attack.chosen("jigsaw:effort=2")
    assert one.params()["effort"] == 2
    with pytest.raises(AttackError):
        attack.chosen("jigsaw:effort=0")


def test_every_attack_is_listed() -> None:
    rows = attack.listing()
    assert all(row["methods"] and row["what"] and row["source"] for row in rows)
    found = {row["attack"]: row for row in rows}
    assert "every cipher (any keys)" in found["observe"]["methods"]
    assert "shared network" in found["link-network"]["methods"]
