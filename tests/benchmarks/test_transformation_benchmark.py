"""The benchmark of transformation networks: its rows, what stands beside them, and resuming."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.transformation import run
from benchmarks.transformation.rows import Row, protections, rows


def test_what_the_paper_reports() -> None:
    assert Row("resnet20", "alpha=0.05", 0).paper("cifar10") == 91.98
    assert Row("vgg16_bn", "alpha=0.1", 0).paper("cifar100") == 1.00
    assert Row("resnet20", "alpha=0", 0).paper("cifar10") is None
    assert Row("resnet18", "plain", 0).paper("cifar10") is None
    assert Row("resnet20", "plain", 0).paper("photos") is None


def test_rows_have_names_of_their_own() -> None:
    wanted = protections([0, 0.01, 0.05], ["le", "pixel", "gan"])
    found = list(rows(["resnet20", "vgg16_bn"], wanted, 2))
    assert len({row.name for row in found}) == len(found) == 2 * 2 * 7
    assert [Row("resnet20", p, 0).alpha for p in wanted] == [None, 0, 0.01, 0.05, None, None, None]


@pytest.mark.slow
def test_all_kinds_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "run --data photos --recipe ito-short --scale 0.02 --widths 4 8 --threads 1"
    command += f" --features classifier --images 100 --folder {tmp_path} --alphas 0 0.01"
    monkeypatch.setattr(sys, "argv", command.split())
    run.main()
    first = (tmp_path / "table.md").read_text()
    assert first in capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    kinds = [row["protection"] for row in found["rows"]]
    assert kinds == ["plain", "alpha=0", "alpha=0.01", "le", "pixel", "gan"]
    assert all(kind in first for kind in kinds)
    assert all(row["cost"]["ms_per_image"] > 0 for row in found["rows"][1:])
    assert (tmp_path / "pictures-resnet20.png").stat().st_size > 1000
    run.main()  # everything is there
    assert (tmp_path / "table.md").read_text() == first
    assert "epoch" not in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command.split(), "--scale", "0.2"])
    with pytest.raises(SystemExit, match="other settings"):
        run.main()
