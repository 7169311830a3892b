"""What papers print stands beside what was run, and beside how it was run."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedenc import documents
from fedenc.errors import ScenarioError
from simulations import attack
from simulations.reproduce import command, lines, papers
from simulations.study import design, plots, runs
from simulations.study.exhibits import Exhibit
from tests.simulations.test_study import fake

SMALL = ("data.name=photos", "clients.count=4", "clients.images=4")


def planned(paper: str, *wanted: str, scale: float = 1.0, seeds: int = 2) -> list[papers.Part]:
    return papers.plan(paper, wanted, SMALL, scale=scale, seeds=seeds)


def test_every_exhibit_of_the_papers_has_runs_and_columns() -> None:
    numbers = {
        "skk2019": [*(f"figure {n}" for n in range(8, 14)), "table 2"],
        "ito2021": [*(f"figure {n}" for n in range(7, 11)), "table 1", "table 2"],
        "chuman2021": ["figure 3"],
    }
    assert papers.names() == sorted(numbers)
    for paper, expected in numbers.items():
        parts = planned(paper, seeds=1)
        assert sorted(one.name for part in parts for one in part.exhibits) == sorted(expected)
        for part in parts:
            for one in part.exhibits:
                needed = [cell for cell in part.design.cells if papers.shows(one, cell)]
                assert needed, one.name
                named = [n for n in (one.rows, one.columns, one.panels, *one.where) if n]
                known = plots.check(design.Plot(x=named[0]), part.design.columns) == []
                assert known, named
                rows = {str(cell.labels.get(one.rows)) for cell in needed}
                assert set(one.printed) <= rows, "what the paper prints has a run of ours"


def test_printed_values_are_the_papers() -> None:
    table = next(e for _, _, e in papers.listing() if e.name == "table 1")
    assert table.printed["α = 0.05"] == {"ResNet-20": 91.98, "VGG16": 44.30}
    assert table.printed["GAN-based [22]"] == {"ResNet-20": 82.55, "VGG16": 81.57}
    attacked = next(e for p, _, e in papers.listing() if (p, e.name) == ("skk2019", "table 2"))
    assert attacked.printed["NP+CS"] == {"same": (0.1715, 10.72), "image": (0.0425, 9.50)}


def test_only_the_runs_of_the_wanted_exhibits_are_made() -> None:
    (part,) = planned("skk2019", "Fig. 9", seeds=1)
    assert [cell.labels["variant"] for cell in part.design.cells] == ["plain", "NP", "NP+CS"]
    assert len(planned("skk2019", "figure8", seeds=3)[0].design.cells) == 32 * 3


@pytest.mark.parametrize(
    ("paper", "wanted", "scale", "message"),
    [
        ("skk2020", (), 1.0, "no paper is called 'skk2020'; expected one of chuman2021, ito2021"),
        (
            "skk2019",
            ("figure 14",),
            1.0,
            "skk2019 has no 'figure 14' here; expected some of .*figure 8",
        ),
        ("skk2019", (), 0.0, "--scale is 0; expected a share above 0, at most 1"),
        ("skk2019", (), 1.5, "--scale is 1.5"),
    ],
)
def test_what_there_is_not_is_said(
    paper: str, wanted: tuple[str, ...], scale: float, message: str
) -> None:
    with pytest.raises(ScenarioError, match=message):
        papers.plan(paper, wanted, SMALL, scale=scale)


def test_a_scale_shortens_training_and_is_named_as_a_deviation() -> None:
    whole = papers.plan("chuman2021", (), ["data.name=synthetic", "data.count=50000"], seeds=1)
    part = papers.plan(
        "chuman2021", (), ["data.name=synthetic", "data.count=50000"], scale=0.01, seeds=1
    )
    (before,), (after,) = ([p.design.cells[0].scenario for p in ps] for ps in (whole, part))
    assert after.clients.images == 10
    assert after.training.scale == pytest.approx(0.01 * before.training.scale)
    assert after.inference.total == 1000
    told = lines.deviations(part[0].exhibits[0], part[0].design.cells)
    assert "training.scale = 0.01 (published: 1.0)" in told
    assert not any("seed" in text for text in told)
    assert set(whole[0].design.cells[0].changed) == {"data.name", "data.count"}


def test_keys_of_the_shared_network_leave_keyed_methods_alone() -> None:
    found = design.load("ito2021-cifar10", [*SMALL, "transformation.features=classifier"], seeds=1)
    for cell in found.cells:
        keyless = cell.scenario.encryption.keyless
        assert (cell.scenario.transformation.features == "classifier") == keyless


def test_paper_ours_and_difference(tmp_path: Path) -> None:
    (part,) = planned("ito2021", "table 1")
    own = tmp_path / part.study
    fake(part.design, own)
    facts = command.write([part], tmp_path, 1.0, [])
    (one,) = facts["exhibits"]
    assert (one["runs"], one["finished"]) == (32, 32)
    by = {(x["labels"]["variant"], x["labels"]["ψ"]): x for x in one["lines"]}
    assert len(by) == 16
    line = by["α = 0.01", "VGG16"]
    values = [
        100
        * json.loads((own / runs.RUNS / c.id / "result.json").read_text())["accuracy"]["plain"][
            "overall"
        ]
        for c in part.design.cells
        if (c.labels["variant"], c.labels["ψ"]) == ("α = 0.01", "VGG16")
    ]
    mean = sum(values) / 2
    assert line["paper"] == 91.59
    assert line["ours"] == pytest.approx(mean)
    assert line["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert line["low"] < mean < line["high"]
    # The data set is not the paper's, so a difference would mean nothing.
    assert line["difference"] is None
    assert any(text.startswith("data.name = photos") for text in one["settings"])
    page = (tmp_path / "report.html").read_text()
    assert "prove nothing about what it reports" in page
    assert "91.59" in page
    assert command.report_again(tmp_path) == page


def test_a_difference_needs_the_published_settings() -> None:
    exhibit = Exhibit(
        name="table 1",
        caption="",
        rows="variant",
        columns="psi",
        printed={"α": {"R": 90.0}},
        needs=("transformation.features",),
    )
    cells = [
        design.Cell({"variant": "α", "psi": "R"}, cell.scenario, changed=changed)
        for cell, changed in zip(
            planned("ito2021", "table1")[0].design.cells[:2],
            ({}, {"transformation.features": "vgg16-relu2_2"}),
            strict=True,
        )
    ]
    for cell, expected in zip(cells, (2.0, None), strict=True):
        row: dict[str, Any] = dict(cell.labels) | {"run": cell.id, "status": "done"}
        row |= {"accuracy": 0.92, "accuracy_low": 0.9, "accuracy_high": 0.94, "queries": 1000}
        (line,) = lines.lines(exhibit, [row], [cell])
        assert line.difference == (None if expected is None else pytest.approx(expected))
        assert line.paper == 90.0
        assert (line.low, line.high) == (90.0, 94.0), "of the run's test images, not its queries"


def test_attacks_stand_beside_the_papers(tmp_path: Path) -> None:
    (part,) = planned("skk2019", "table 2", seeds=1)
    own = tmp_path / part.study
    fake(part.design, own)
    for number, cell in enumerate(part.design.cells):
        row = {"attack": "locally-connected", "status": "done", "knowledge": ["public images"]}
        row |= {"ssim_gaussian11": 0.1 * number, "psnr": 10.0}
        row |= {"control": {"constant": {"ssim_gaussian11": 0.12, "psnr": 12.6}}}
        path = own / runs.RUNS / cell.id / runs.ATTACKS / attack.FACTS
        path.parent.mkdir()
        rows = [row, row | {"attack": "affine"}]
        path.write_text(json.dumps(documents.sealed({"rows": rows})))
    (one,) = command.write([part], tmp_path, 1.0, [])["exhibits"]
    found = {(*x["labels"].values(), x["measure"]): x for x in one["lines"]}
    line = found["NP", "image", "locally-connected", "psnr"]
    assert (line["paper"], line["ours"]) == (9.50, 10.0)
    beside = found["NP", "image", "affine", "psnr"]
    assert (beside["paper"], beside["ours"]) == (None, 10.0), "the paper has no such attack"
    control = found["NP", "image", "locally-connected", "constant psnr"]
    assert (control["paper"], control["ours"]) == (None, 12.6)


def test_a_run_that_was_not_attacked_is_not_finished(tmp_path: Path) -> None:
    (part,) = planned("skk2019", "table 2", seeds=1)
    fake(part.design, tmp_path)
    assert not any(runs.finished(tmp_path, cell) for cell in part.design.cells)
    assert all(runs.unattacked(tmp_path, cell) for cell in part.design.cells)
