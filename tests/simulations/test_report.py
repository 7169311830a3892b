"""Reports: one file that needs nothing else, reads in both themes, and fits a phone."""

import html.parser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fedenc.scenario import load
from simulations import central, cli, report, run
from simulations.experiment import Experiment, OnEvent, prepare
from simulations.report import charts
from simulations.run_folder import PROVIDER

SETS = [
    "clients.count=4",
    "clients.images=20",
    "clients.query_only=1",
    "encryption.seed=3",
    "model.name=tiny",
    "model.compare=['invariant']",
    "training.epochs=2",
    "inference.images=6",
    "server.threads=1",
]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    experiment = prepare(load(None, SETS), "<b>bold</b>")

    def perform(experiment: Experiment, on_event: OnEvent) -> Any:
        return central.perform(experiment, folder / PROVIDER, on_event)

    run.record(experiment, folder, perform, baselines=True)
    return folder


class Balanced(html.parser.HTMLParser):
    """Fails on tags that are not closed in order, and on what a page must not load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href"):
                assert (value or "").startswith("data:"), value
        assert tag not in ("script", "link", "iframe")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_run_writes_a_page_that_needs_nothing_else(folder: Path) -> None:
    page = (folder / report.REPORT).read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold</b>" not in page
    for heading in ("Accuracy by kind of query", "What leaks", "Participants", "Baselines"):
        assert heading in page
    assert "McNemar" in page or "no difference" in page
    assert (folder / report.REPORT).stat().st_mode & 0o077 == 0, "it shows participants' images"
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"encryption.{0,20}seed", page)


def test_the_report_command_writes_it_again(folder: Path, capsys: Any) -> None:
    before = (folder / report.REPORT).read_text()
    (folder / report.REPORT).unlink()
    assert cli.execute(["report", str(folder)]) == 0
    assert (folder / report.REPORT).read_text() == before
    assert cli.execute(["report", str(folder.parent)]) != 0
    error = capsys.readouterr().err
    assert "holds none of result.json, study.json, attacks.json" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_overflows_in_a_browser(folder: Path, tmp_path: Path, width: int) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" width="{width}" height="900" src="{folder / report.REPORT}"></iframe>'
        '<pre id="out"></pre><script>onload = () => { out.textContent = "width " + '
        "f.contentDocument.documentElement.scrollWidth; }</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    done = subprocess.run(
        [str(BROWSER), *flags, "--virtual-time-budget=3000", "--dump-dom", str(frame)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r"width (\d+)", done.stdout)
    assert found, done.stdout[-500:]
    assert int(found.group(1)) <= width


def test_charts_escape_their_labels() -> None:
    drawn = [
        charts.bars([("<a>", 0.5, 0.4, 0.6)], mark=0.1, mark_text="<m>"),
        charts.lines([("<b>", [(1.0, 2.0)])], x="<x>", y="<y>"),
        charts.strip([("<c>", [0.1, 0.2])]),
    ]
    for svg in drawn:
        assert not re.search(r"<[abcmxy]>", svg)
    assert charts.lines([], x="x", y="y") == ""
