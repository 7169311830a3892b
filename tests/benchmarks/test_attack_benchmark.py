"""The attack benchmark covers every cipher and policy, and adds up what several commands found."""

import json
from pathlib import Path
from typing import Any

from benchmarks.attacks import draw, run
from benchmarks.attacks.cells import KEYED, METHODS, POLICIES, Cell, cells
from fedenc import ciphers
from fedenc.scenario import parse

SETTINGS: dict[str, dict[str, Any]] = {
    "clients": {"count": 2},
    "model": {"name": "tiny"},
    "transformation": {"answers": "central", "fraction": 0.5},
}


def test_every_cipher_is_attacked_under_every_policy() -> None:
    found = list(cells(METHODS, POLICIES))
    assert len({cell.name for cell in found}) == len(found)
    covered = {KEYED[cell.method]["cipher"] for cell in found if cell.keys}
    assert covered == set(ciphers.names()) - {"none"}
    for cell in found:
        scenario = parse(cell.scenario(SETTINGS))
        assert scenario.encryption.keyless == (cell.keys is None)
        assert cell.keys in (None, scenario.encryption.keys)


def row(attack: str, **values: Any) -> dict[str, Any]:
    empty = ("recognised", "linked", "key_recovered", "ssim_gaussian11", "rank")
    found = {"attack": attack, "knowledge": [], "control": {}, **dict.fromkeys(empty)} | values
    if found["recognised"] is not None:
        found["recognised_low"], found["recognised_high"] = (
            found["recognised"] - 0.05,
            found["recognised"] + 0.05,
        )
    return found


def test_results_of_several_commands_are_one_table(tmp_path: Path) -> None:
    controls = {"ciphertext": {"recognised": 0.1}}
    seen = {"ssim_gaussian11": 0.5, "rank": 3.0, "control": controls}
    for cell, share in ((Cell("pixel", "same"), 0.9), (Cell("alpha=0.05", None), 0.3)):
        own = tmp_path / cell.name
        rows = [row("observe", recognised=share / 2, **seen), row("link", linked=1.0)]
        rows.append(row("affine", recognised=share, **seen))
        for one in rows:
            folder = own / "work" / one["attack"]
            folder.mkdir(parents=True)
            (folder / "row.json").write_text(json.dumps({"identity": "", "row": one}))
        accuracy = {"raw": {"encrypted": 0.4, "plain": 0.2}}
        content = {"method": cell.method, "keys": cell.keys, "accuracy": accuracy, "chance": 0.1}
        (own / run.CELL).write_text(json.dumps(content))
    results = run.finished(tmp_path)
    assert [r["method"] for r in results] == ["pixel", "alpha=0.05"]
    assert [r["attack"] for r in results[0]["rows"]] == ["observe", "link", "affine"]
    assert draw.best(results[0]) == results[0]["rows"][2]
    noisy = [row("known", recognised=0.92, knowledge=["pairs"], **seen), *results[0]["rows"]]
    assert draw.best({"rows": noisy}) == results[0]["rows"][2], "as good, and knows less"
    lines = draw.table(results).splitlines()
    assert len(lines) == 4
    assert "| affine | 90.0 | 10.0 | 0.50 | 3.0 |" in lines[2]
    draw.everything(results, tmp_path)
    assert (tmp_path / "frontier.png").stat().st_size > 5_000
    assert not (tmp_path / "ssim.png").exists(), "no ITN-Attack, nothing to compare"
