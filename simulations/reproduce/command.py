"""``fedenc reproduce``: run what a paper's exhibits need; write them beside what it prints."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fedenc import documents, provenance
from fedenc.errors import ScenarioError
from fedenc.files import write_atomically
from simulations import report
from simulations.reproduce import figures, lines, papers
from simulations.reproduce.papers import Part
from simulations.study import command as studies
from simulations.study import table

SCHEMA = 1  # of reproduce.json; see docs/studies.md
FACTS, FIGURES = "reproduce.json", "figures"
HEADINGS = ("paper", "ours", "95 %", "difference", "seeds")  # of the figures in a line
Facts = dict[str, Any]


def perform(
    parts: Sequence[Part],
    folder: Path,
    console: Console,
    *,
    scale: float,
    resume: bool = False,
    address: str | None = None,
    at_once: int | None = None,
) -> Facts:
    """Run the studies one after another, and write ``reproduce.json``, pictures and the page.

    Args:
        parts: of one paper, from :func:`papers.plan`.
        folder: of all its studies, a folder each.
        scale: that the parts were planned at.
        resume: continue studies that are in the folder already.

    Raises:
        ScenarioError, EngineError: as :func:`simulations.study.command.perform`.
    """
    if folder.exists() and not folder.is_dir():
        raise ScenarioError(f"--out {folder} is a file; name a folder")
    failed = list[Facts]()
    for part in parts:
        own = folder / part.study
        # A study that another call has not come to yet starts even when others are continued.
        known = resume and (own / studies.CELLS).exists()
        done = studies.perform(
            part.design, own, console, resume=known, address=address, at_once=at_once
        )
        failed += done.facts["failed"]
    return write(parts, folder, scale, failed)


def write(parts: Sequence[Part], folder: Path, scale: float, failed: Sequence[Facts]) -> Facts:
    """Write ``reproduce.json``, pictures and the page, from what runs have finished."""
    paper = parts[0].paper
    facts: Facts = {
        "schema": SCHEMA,
        "paper": paper.name,
        "reference": paper.reference,
        "scale": scale,
        "deviations": list(dict.fromkeys(text for p in parts for text in p.paper.deviations)),
        "exhibits": sorted((one for p in parts for one in _exhibits(p, folder)), key=_place),
        "failed": list(failed),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "command": provenance.command(),
        "commit": provenance.commit(),
    }
    text = json.dumps(documents.sealed(facts), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(folder / FACTS, text.encode() + b"\n")
    write_atomically(
        folder / report.REPORT, report.of_paper(facts, _pictures(facts, folder)).encode()
    )
    return facts


def report_again(folder: Path) -> str:
    """The page, from the files in its folder.

    Raises:
        ScenarioError: ``reproduce.json`` is damaged.
    """
    try:
        facts = documents.unsealed((folder / FACTS).read_bytes())
        return report.of_paper(facts, _pictures(facts, folder))
    except (ValueError, KeyError, TypeError) as error:
        raise ScenarioError(f"{folder / FACTS} is damaged ({error}); use --resume") from None


def _exhibits(part: Part, folder: Path) -> list[Facts]:
    own, cells = folder / part.study, part.design.cells
    rows, attacked = table.rows(part.design, own), table.attack_rows(part.design, own)
    found = list[Facts]()
    for exhibit in part.exhibits:
        source = attacked if exhibit.kind in ("attacks", "boxes", "pictures") else rows
        measured = exhibit.kind in ("accuracy", "attacks")
        drawn = figures.draw(exhibit, source, cells, own)
        names = [
            f"{FIGURES}/{papers.short(exhibit.name)}-{number}.{ending}"
            for number, (_, ending, _) in enumerate(drawn, start=1)
        ]
        for name, (_, _, content) in zip(names, drawn, strict=True):
            write_atomically(folder / name, content)
        needed = [cell for cell in cells if papers.shows(exhibit, cell)]
        done = {row["run"] for row in rows if row["status"] == "done"}
        found.append(
            {
                "study": part.study,
                "name": exhibit.name,
                "caption": exhibit.caption,
                "runs": len(needed),
                "finished": sum(cell.id in done for cell in needed),
                "lines": [
                    asdict(line)
                    for line in (lines.lines(exhibit, source, cells) if measured else [])
                ],
                "figures": [
                    {"title": title, "path": name}
                    for name, (title, _, _) in zip(names, drawn, strict=True)
                ],
                "deviations": list(exhibit.deviations),
                "settings": lines.deviations(exhibit, cells),
            }
        )
    return found


def _place(exhibit: Facts) -> tuple[str, int]:
    """Figures by number, then tables."""
    kind, number = exhibit["name"].split()
    return kind, int(number)


def _pictures(facts: Facts, folder: Path) -> dict[str, bytes]:
    paths = [figure["path"] for one in facts["exhibits"] for figure in one["figures"]]
    return {path: (folder / path).read_bytes() for path in paths if (folder / path).exists()}


def show(console: Console, facts: Facts, folder: Path) -> None:
    """Print every exhibit's table."""
    for one in facts["exhibits"]:
        title = f"{one['name']}: {one['caption']} ({one['finished']} of {one['runs']} runs)"
        if not one["lines"]:
            console.print(f"{title}: {len(one['figures'])} pictures\n", highlight=False)
            continue
        shown = Table(title=title, title_justify="left", box=box.SIMPLE)
        shown.add_column("what")
        for heading in headings(one):
            shown.add_column(heading, justify="right")
        for line in one["lines"]:
            measure = [line["measure"]] if line["measure"] != "accuracy" else []
            what = ", ".join([*map(str, line["labels"].values()), *measure])
            shown.add_row(what, *(cells(line)[heading] for heading in headings(one)))
        console.print(shown)
    if any(one["settings"] for one in facts["exhibits"]):
        console.print(
            "Not run as published, so it proves nothing about the paper; the page names every "
            "difference.",
            highlight=False,
        )
    console.print(f"Page: {folder / report.REPORT}", soft_wrap=True, highlight=False)


def cells(line: Facts) -> dict[str, str]:
    """A line's figures as text, by heading."""
    digits = 3 if "ssim" in line["measure"] else 2

    def text(value: float | None, form: str = "") -> str:
        return "" if value is None else f"{value:{form}.{digits}f}"

    spread = "" if line["deviation"] is None else f" ± {text(line['deviation'])}"
    interval = "" if line["low"] is None else f"{text(line['low'])} to {text(line['high'])}"
    texts = (text(line["paper"]), text(line["ours"]) + spread, interval)
    return dict(
        zip(HEADINGS, (*texts, text(line["difference"], "+"), str(line["seeds"])), strict=True)
    )


def headings(exhibit: Facts) -> Sequence[str]:
    """The columns of an exhibit's figures: those of the paper where it prints some."""
    printed = any(line["paper"] is not None for line in exhibit["lines"])
    return HEADINGS if printed else [h for h in HEADINGS if h not in ("paper", "difference")]


def show_papers(console: Console) -> None:
    """Print the papers, and what of them can be reproduced."""
    found = Table(box=None)
    for heading in ("paper", "exhibit", "what it shows", "study"):
        found.add_column(heading, no_wrap=heading != "what it shows")
    last = ""
    for paper, study, exhibit in papers.listing():
        found.add_row(paper if paper != last else "", exhibit.name, exhibit.caption, study)
        last = paper
    console.print(found)
