"""What machines of a cluster are asked, and what is said of those that differ."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.simulated import Population
from fedenc.data import Dataset
from fedenc.data.dataset import Split
from fedenc.scenario import Scenario, parse
from simulations import cluster
from simulations.cluster import Machine

SHAPE = (3, 32, 32)
FIRST = Machine("1", "10.0.0.1", "a", 4, 0, False)
SECOND = Machine("2", "10.0.0.2", "b", 4, 0, False)


def scenario(**encryption: Any) -> Scenario:
    values = {"seed": "public", **encryption}
    return parse({"data": {"name": "synthetic", "count": 20}, "encryption": values})


def told(made: Scenario) -> dict[str, Any]:
    return cluster.look((made.model_dump_json(by_alias=True), SHAPE))


def problems(*found: dict[str, Any]) -> list[str]:
    expected = told(scenario())
    return cluster._problems(expected, dict(zip((SECOND, FIRST), found, strict=False)))


def test_machines_that_are_alike_have_no_problem() -> None:
    assert problems(told(scenario()), told(scenario())) == []
    assert problems(cluster.look(None)) == [], "a trainer needs neither data nor cipher"


def test_other_versions_are_named_with_what_is_expected() -> None:
    other = told(scenario())
    there = {**other["versions"], "torch": "1.0"}
    del there["cryptography"]
    (problem,) = problems({**other, "versions": there})
    assert problem.startswith("machine 10.0.0.2 (b): other versions than on the driver's machine:")
    mine = other["versions"]
    assert f"torch 1.0 (expected {mine['torch']})" in problem
    assert f"cryptography is missing (expected {mine['cryptography']})" in problem
    assert "numpy" not in problem


def test_builds_of_one_version_may_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> dict[str, str]:
        return {"torch": "2.9.0+cpu", "python": "3.11.7"}

    monkeypatch.setattr(cluster.provenance, "versions", found)
    assert cluster.versions()["torch"] == "2.9.0"
    assert cluster.versions()["python"].count(".") == 1


def test_a_problem_of_several_machines_is_said_once() -> None:
    lacking = {**cluster.look(None), "problem": "no such folder"}
    (problem,) = problems(lacking, lacking)
    assert problem.startswith("machines 10.0.0.1 (a), 10.0.0.2 (b): participants cannot run there")
    assert "no such folder" in problem
    (problem,) = problems({"missing": "No module named 'flwr'"})
    assert "No module named 'flwr'" in problem
    assert "install" in problem


def test_missing_data_is_told_and_not_raised(tmp_path: Path) -> None:
    made = scenario()
    data = made.data.model_copy(
        update={"name": "folder", "root": str(tmp_path / "none"), "size": 32, "count": None}
    )
    found = told(made.model_copy(update={"data": data}))
    assert "none" in found["problem"]


def test_another_data_set_or_cipher_shows() -> None:
    same = told(scenario())
    (problem,) = problems({**same, "data": "another"})
    assert "its data set is not the one on the driver's machine" in problem
    (problem,) = problems(told(scenario(color_shuffle=False)))
    assert "its cipher encrypts otherwise" in problem


@pytest.mark.parametrize("what", ["image", "label", "class", "count"])
def test_the_digest_of_data_tells_sets_apart(what: str) -> None:
    images, labels = np.zeros((6, 3, 4, 4), np.uint8), np.arange(6) % 2
    split = Split(images, labels)
    mine = Dataset("mine", split, split, ("a", "b"))
    changed = images.copy()
    changed[5, 2, 3, 3] = 1
    other = {
        "image": replace(mine, test=Split(changed, labels)),
        "label": replace(mine, train=Split(images, labels[::-1])),
        "class": replace(mine, classes=("b", "a")),
        "count": replace(mine, train=Split(images[:5], labels[:5])),
    }[what]
    assert cluster.data_digest(mine) == cluster.data_digest(replace(mine, name="other"))
    assert cluster.data_digest(mine) != cluster.data_digest(other)


def test_the_digest_of_a_cipher_is_of_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    people = Population(scenario(cipher="le"))
    before = cluster.cipher_digest(people, SHAPE)
    assert before == cluster.cipher_digest(Population(scenario(cipher="le")), SHAPE)
    kind = type(people._cipher)
    monkeypatch.setattr(kind, "encrypt", lambda self, images, stream: images)
    assert before != cluster.cipher_digest(people, SHAPE), "another version of the same name"
