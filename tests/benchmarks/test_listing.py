"""``python -m benchmarks`` finds whatever has a README, and says how to run it."""

from pathlib import Path

import pytest

from benchmarks.__main__ import first_paragraph, found, main


def test_every_benchmark_is_described_in_one_line_and_can_be_run() -> None:
    listed = dict(found())
    assert "scale" in listed
    for name, about in listed.items():
        assert about, f"benchmarks/{name}/README.md starts with no paragraph"
        assert "\n" not in about
        folder = Path(__file__).resolve().parents[2] / "benchmarks" / name
        assert (folder / "run.py").exists()


def test_folders_without_a_readme_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "README.md").write_text("# Told\n\nWhat it\nmeasures.\n\nMore.\n")
    assert list(found(tmp_path)) == [("told", "What it measures.")]


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("", ""),
        ("# Only a heading\n", ""),
        ("No heading.", "No heading."),
        ("# A\n\n## B\n\nText  of\nit.\n", "Text of it."),
    ],
)
def test_first_paragraph(markdown: str, expected: str) -> None:
    assert first_paragraph(markdown) == expected


def test_the_list_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert "python -m benchmarks.scale.run" in capsys.readouterr().out
