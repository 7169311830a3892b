"""``fedenc study``: run a design, show how far it is, and write its table, plots and report."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from fedenc import documents, provenance
from fedenc.errors import ScenarioError
from fedenc.files import write_atomically
from simulations import report
from simulations.study import design as designs
from simulations.study import plots, runs, table
from simulations.study.design import Design
from simulations.study.runs import Update

SCHEMA = 2  # of study.json; see docs/studies.md. 1 had no digest
FACTS, TABLE, CELLS = "study.json", "study.parquet", "cells.json"
ATTACKED = "attacks.parquet"  # only of studies that attack their runs
_SHOWN = 12  # lines of runs that are shown at a time


@dataclass(frozen=True)
class Finished:
    """A study's outcome, in memory as it is written."""

    folder: Path
    facts: Mapping[str, Any]
    rows: list[table.Row] = field(repr=False)


def perform(
    design: Design,
    folder: Path,
    console: Console,
    *,
    resume: bool = False,
    address: str | None = None,
    at_once: int | None = None,
) -> Finished:
    """Run what is not finished, then write everything.

    Args:
        folder: the study's; must be empty or new unless ``resume``.
        address: of a Ray cluster; None: this machine.
        at_once: how many runs at a time; None: what suits the machine.

    Raises:
        ScenarioError: a plot's column does not exist, or a group's does already; the folder holds
            another study, or something else.
        EngineError: Ray cannot be started or reached.
    """
    labels = [*design.columns, "seed"]
    problems = [text for plot in design.plots for text in plots.check(plot, labels)]
    problems += [
        f"variants.{name}: the table has a column {name!r} already; name this one differently"
        for name in design.columns
        if name in table.COLUMNS
    ]
    if problems:
        raise ScenarioError(problems)
    _claim(design, folder, resume)
    start = time.monotonic()
    board = Board(design, folder)
    with Live(board, console=console, refresh_per_second=2, transient=True) as live:
        live.auto_refresh = console.is_terminal
        for update in runs.run(design.cells, folder, address=address, at_once=at_once):
            board.take(update)
            if update.status in ("done", "failed") and not console.is_terminal:
                text = f"{update.status:<7} {update.cell.text} {update.text}".rstrip()
                console.print(text, markup=False, highlight=False, soft_wrap=True)
    return write(design, folder, time.monotonic() - start)


def write(design: Design, folder: Path, seconds: float) -> Finished:
    """Write ``study.parquet``, plots and ``study.json`` from what runs have finished."""
    rows = table.rows(design, folder)
    _write_table(folder / TABLE, rows)
    if design.attacks is not None:
        _write_table(folder / ATTACKED, table.attack_rows(design, folder))
    drawn: dict[str, bytes] = {}
    for number, plot in enumerate(design.plots, start=1):
        files = plots.draw(plot, rows)
        for kind, content in files.items():
            write_atomically(folder / "plots" / f"{number}.{kind}", content)
        drawn[f"{number}. {plot.title or f'{plot.y} over {plot.x}'}"] = files["svg"]
    failed = [row for row in rows if row["status"] != "done"]
    failed += [
        {"run": cell.id, "status": "not attacked", "reason": runs.why(folder / runs.RUNS / cell.id)}
        for cell in design.cells
        if runs.unattacked(folder, cell)
    ]
    facts = {
        "schema": SCHEMA,
        "name": design.name,
        "question": design.question,
        "columns": design.columns,
        "runs": {"planned": len(design.cells), "finished": len(design.cells) - len(failed)},
        "failed": [{"run": r["run"], "status": r["status"], "reason": r["reason"]} for r in failed],
        "seconds": seconds,
        "plots": list(drawn),
        "summary": table.summary(design, rows),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
    }
    write_atomically(folder / report.REPORT, report.of_study(facts, drawn).encode())
    write_atomically(folder / FACTS, as_json(facts))
    return Finished(folder, facts, rows)


def _write_table(path: Path, rows: Sequence[table.Row]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table.arrow(rows), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def as_json(facts: Mapping[str, Any]) -> bytes:
    """The content of a ``study.json``."""
    return json.dumps(documents.sealed(facts), indent=2, allow_nan=False).encode() + b"\n"


def read(folder: Path) -> dict[str, Any]:
    """The content of ``study.json``; ScenarioError if it is damaged."""
    try:
        facts = documents.unsealed((folder / FACTS).read_bytes(), since="schema")
        if not isinstance(facts["plots"], list):
            raise ValueError("plots are no list")
    except (OSError, ValueError, KeyError) as error:
        raise ScenarioError(f"{folder / FACTS} is damaged ({error}); use --resume") from None
    return facts


def report_again(folder: Path) -> str:
    """A study's report, from the files in its folder.

    Raises:
        ScenarioError: ``study.json`` is damaged.
    """
    facts = read(folder)
    titles = facts["plots"]
    paths = {title: folder / "plots" / f"{n}.svg" for n, title in enumerate(titles, start=1)}
    drawn = {title: path.read_bytes() for title, path in paths.items() if path.exists()}
    return report.of_study(facts, drawn)


def _claim(design: Design, folder: Path, resume: bool) -> None:
    """A folder belongs to one study: the runs in it are of the same name and question."""
    attacks = None if design.attacks is None else design.attacks.model_dump()
    if folder.exists() and not folder.is_dir():
        raise ScenarioError(f"--out {folder} is a file; name a folder")
    note = folder / CELLS
    if note.exists():
        try:
            kept = documents.parse(note.read_bytes())
            found, plan = kept.get("name"), kept.get("attacks")
        except (OSError, ValueError, AttributeError):
            raise ScenarioError(f"{note} is damaged; start in another folder") from None
        if found != design.name:
            raise ScenarioError(
                f"{folder} holds the study {found!r}, not {design.name!r}; name another folder"
            )
        if not resume:
            raise ScenarioError(f"{folder} holds this study already; use --resume to continue it")
        if plan != attacks:
            raise ScenarioError(
                f"the runs in {folder} were attacked by {plan}, not {attacks}; name another folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise ScenarioError(f"{folder} is not empty and holds no study; name another folder")
    texts = {cell.id: cell.text for cell in design.cells}
    content = {"name": design.name, "attacks": attacks, "cells": texts}
    write_atomically(note, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


class Board:
    """A live picture of a study: what runs, what ended, how long it will take."""

    def __init__(self, design: Design, folder: Path) -> None:
        self._design = design
        self._updates: dict[str, Update] = {}
        self._start = time.monotonic()
        for cell in design.cells:
            if runs.finished(folder, cell):
                self._updates[cell.id] = Update(cell, "done")
        self._before = len(self._updates)

    def take(self, update: Update) -> None:
        """Note what became of a run."""
        self._updates[update.cell.id] = update

    def __rich__(self) -> RenderableType:
        counts = Counter(update.status for update in self._updates.values())
        parts = (f"{counts[s]} {s}" for s in ("done", "running", "queued", "failed") if counts[s])
        line = f"{self._design.name}: {', '.join(parts)} of {len(self._design.cells)} runs"
        shown = Table(box=box.SIMPLE)
        for name in ("run", "status", "time", "what goes on"):
            shown.add_column(name)
        order = {"running": 0, "failed": 1, "done": 2, "queued": 3}
        for update in sorted(self._updates.values(), key=lambda u: order[u.status])[:_SHOWN]:
            spent = str(timedelta(seconds=round(update.seconds))) if update.seconds else ""
            shown.add_row(update.cell.text, update.status, spent, update.text)
        return Group(line + self._left(counts), shown)

    def _left(self, counts: Counter[Any]) -> str:
        ended = counts["done"] + counts["failed"] - self._before
        left = len(self._design.cells) - counts["done"] - counts["failed"]
        if not (ended and left):
            return ""
        seconds = (time.monotonic() - self._start) / ended * left
        return f", about {timedelta(seconds=round(seconds))} left"


def show(console: Console, finished: Finished) -> None:
    """Print the table of means, and what failed."""
    facts = finished.facts
    lines = facts["summary"]
    several = {
        name
        for name in (*facts["columns"], "input", "asker", "condition")
        if len({str(line[name]) for line in lines}) > 1
    }
    found = Table(title=facts["question"], title_justify="left", box=box.SIMPLE)
    names = [n for n in (*facts["columns"], "input", "asker", "condition") if n in several]
    for name in names:
        found.add_column(name)
    found.add_column("accuracy", justify="right")
    found.add_column("95 %", justify="right")
    found.add_column("seeds", justify="right")
    for line in lines:
        mean, half = 100 * line["accuracy"], 100 * (line["half"] or 0)
        one = line["half"] is None
        accuracy = f"{mean:.1f} %" if one else f"{mean:.1f} ± {100 * line['deviation']:.1f} %"
        interval = "" if one else f"{mean - half:.1f} to {mean + half:.1f}"
        cells = [str(line[name]) for name in names]
        found.add_row(*cells, accuracy, interval, str(line["seeds"]))
    console.print(found)
    for failure in facts["failed"]:
        text = f"{failure['run']}: {failure['status']}: {failure['reason'] or 'never started'}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    runs_ = facts["runs"]
    console.print(
        f"{runs_['finished']} of {runs_['planned']} runs; table and plots: {finished.folder}",
        soft_wrap=True,
        highlight=False,
    )


def show_presets(console: Console) -> None:
    """Print the study presets and their questions."""
    found = Table(box=None)
    found.add_column("study", style="bold", no_wrap=True)
    found.add_column("question")
    for name in designs.names():
        found.add_row(name, designs.file(name).study.question)
    console.print(found)
