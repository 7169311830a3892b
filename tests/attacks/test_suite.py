"""Every attack is scored alike, beside its controls; what fails or does not apply is said."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from victims import victims

from fedenc.attacks.base import Attack, Findings, Knowledge, Means, Method, Observation
from fedenc.attacks.judge import CONTROLS, Judge
from fedenc.attacks.suite import attempt, run
from fedenc.errors import AttackError


@dataclass(frozen=True)
class Fake(Attack):
    """Returns what it is told to."""

    name: ClassVar[str] = "fake"
    source: ClassVar[str] = "a test"
    what: str = "plain"

    def unsuitable(self, method: Method) -> str | None:
        return "needs shared keys" if method.policy == "image" else None

    def run(self, observation: Observation, means: Means) -> Findings:
        uploads = observation.uploads.images
        if self.what == "shape":
            return Findings(images=uploads[:2])
        if self.what == "links":
            return Findings(links=torch.full((len(uploads),), len(uploads)))
        if self.what == "defect":
            raise ZeroDivisionError("nothing to divide")
        if self.what == "few":
            raise AttackError("found 1 image, expected 2 or more")
        cipher = observation.method.cipher
        assert cipher is not None
        return Findings(images=uploads, facts={"calls": 1})


@dataclass(frozen=True)
class Knowing(Fake):
    """Knows pairs and candidates."""

    name: ClassVar[str] = "knowing"
    knowledge = frozenset({Knowledge.PAIRS, Knowledge.CANDIDATES})

    def run(self, observation: Observation, means: Means) -> Findings:
        links = torch.full((len(observation.candidates),), -1)
        links[:20] = torch.arange(20)
        links[-5:] = 3
        return Findings(images=observation.uploads.images, links=links)


def test_an_estimate_is_scored_beside_its_controls() -> None:
    target = victims("pixel", "same", count=60)
    scored = attempt(Fake(), Judge(target), Means())
    row = scored.row
    assert row["status"] == "done"
    assert row["targets"] == 60
    assert row["facts"] == {"calls": 1}
    assert set(row["control"]) == set(CONTROLS)
    # The attack returned the protected images, so it scores what that control scores.
    for measure in ("ssim_uniform7", "psnr", "rank", "edges"):
        assert row[measure] == row["control"]["ciphertext"][measure]
        assert row[f"{measure}_low"] <= row[measure] <= row[f"{measure}_high"]
    assert scored.images is not None
    assert scored.images.num_rows == 60 * (1 + len(CONTROLS))
    assert scored.picture is not None
    assert scored.picture.startswith(b"\x89PNG")
    assert row["linked"] is None
    json.dumps(row, allow_nan=False)


def test_links_count_among_uploaded_and_others() -> None:
    target = victims("pixel", "same", count=60)
    row = attempt(Knowing(), Judge(target), Means()).row
    assert row["linked"] == 0.4
    assert row["false_links"] == 0.1
    assert row["targets"] == 60 - len(target.known), "known images do not count"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("shape", r"images have shape \(2, 3, 32, 32\), expected \(24, 3, 32, 32\)"),
        ("defect", "ZeroDivisionError: nothing to divide"),
        ("few", "found 1 image, expected 2 or more"),
    ],
)
def test_what_fails_says_why(what: str, reason: str) -> None:
    row = attempt(Fake(what), Judge(victims("pixel", "same", count=24)), Means()).row
    assert row["status"] == "failed"
    assert row["ssim_uniform7"] is None
    assert re.fullmatch(reason, row["reason"])


def test_what_does_not_apply_is_not_run() -> None:
    row = attempt(Fake("defect"), Judge(victims("pixel", "image", count=24)), Means()).row
    assert (row["status"], row["reason"]) == ("does not apply", "needs shared keys")


def test_finished_attacks_are_not_run_again(tmp_path: Path) -> None:
    judge = Judge(victims("pixel", "same", count=24))
    attacks = [Fake(), Knowing(), Fake("defect")]
    first = list(run(attacks[:2], judge, tmp_path))
    (tmp_path / "knowing" / "row.json").unlink()  # as if interrupted in the second
    (tmp_path / "fake" / "picture.png").write_bytes(b"mark")
    second = list(run(attacks[:2], judge, tmp_path))
    assert second[0].picture == b"mark", "taken over"
    assert second[0].row == first[0].row
    assert second[1].row | {"seconds": 0} == first[1].row | {"seconds": 0}
    other = list(run([Fake()], Judge(victims("pixel", "same", count=25)), tmp_path))
    assert other[0].picture != b"mark", "another target"
    failed = list(run(attacks[2:], judge, tmp_path))
    assert failed[0].row["status"] == "failed"


def test_other_parameters_are_another_attack_and_failures_stay_visible(tmp_path: Path) -> None:
    judge = Judge(victims("pixel", "same", count=24))
    (first,) = run([Fake()], judge, tmp_path)
    assert first.picture is not None
    (failed,) = run([Fake("few")], judge, tmp_path)
    kept = json.loads((tmp_path / "fake" / "row.json").read_text())
    assert kept["row"] == failed.row
    assert failed.row["status"] == "failed"
    assert not (tmp_path / "fake" / "picture.png").exists(), "of the other parameters"
    assert (tmp_path / "fake" / "row.json").stat().st_mode & 0o077 == 0
    (again,) = run([Fake()], judge, tmp_path)
    assert again.row["status"] == "done"
    seen = Judge(judge.target, lambda images: judge.target.labels[: len(images)])
    (scored,) = run([Fake()], seen, tmp_path)
    assert scored.row["recognised"] == 1.0, "a judge who sees more scores anew"


def test_another_key_scores_what_guessing_scores() -> None:
    target = victims("pixel", "same", count=24, color_shuffle=False)
    key = target.key

    @dataclass(frozen=True)
    class Reading(Fake):
        """Reads the key."""

        def run(self, observation: Observation, means: Means) -> Findings:
            return Findings(key=tuple((255 - part.long(),) for (part,) in key), complement=True)

    row = attempt(Reading(), Judge(target), Means()).row
    assert row["key_recovered"] == 1
    assert 0.5 <= row["control"]["another key"]["key_recovered"] < 0.55
