"""The commands that make many runs: ``fedenc study`` and ``fedenc reproduce``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer()

_SETS = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="For all runs; repeatable."),
]
_OUT = Annotated[Path | None, typer.Option(help="Folder for results [default: runs/NAME].")]
_RESUME = Annotated[
    bool, typer.Option("--resume", help="Continue; nothing that is finished is run again.")
]
_AT_ONCE = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time [default: what suits the machine].")
]
_ADDRESS = Annotated[str | None, typer.Option(help="An existing Ray cluster: host:port, or auto.")]
_DRY_RUN = Annotated[
    bool, typer.Option("--dry-run", help="Only list the runs, and estimate their time.")
]


@app.command()
def study(
    design: Annotated[
        str | None, typer.Argument(help="A study preset or a TOML file; none: list the presets.")
    ] = None,
    sets: _SETS = None,
    out: _OUT = None,
    resume: _RESUME = False,
    at_once: _AT_ONCE = None,
    address: _ADDRESS = None,
    dry_run: _DRY_RUN = False,
) -> None:
    """Run a question's experiments, several at a time; one table, plots and a report."""
    from simulations import engine, secret
    from simulations.study import command, estimate
    from simulations.study import design as designs

    terminal = Console()
    if design is None:
        command.show_presets(terminal)
        return
    engine.quiet()
    planned = designs.load(design, secret.overrides(sets or ()))
    if dry_run:
        estimate.show(terminal, planned)
        return
    folder = out or Path("runs") / planned.name
    done = command.perform(
        planned, folder, terminal, resume=resume, address=address, at_once=at_once
    )
    command.show(terminal, done)
    if done.facts["failed"]:
        raise typer.Exit(1)


@app.command()
def reproduce(
    paper: Annotated[
        str | None, typer.Argument(help="skk2019, ito2021 or chuman2021; none: list what there is.")
    ] = None,
    exhibits: Annotated[
        list[str] | None, typer.Argument(help='Such as table1 or "figure 8" [default: all].')
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Share of the images and of the epochs; 1 is the paper's size.")
    ] = 1.0,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many [default: as the studies say].")
    ] = None,
    sets: _SETS = None,
    out: _OUT = None,
    resume: _RESUME = False,
    at_once: _AT_ONCE = None,
    address: _ADDRESS = None,
    dry_run: _DRY_RUN = False,
) -> None:
    """Run a paper's tables and figures again: paper, ours and the difference, on one page.

    With --resume further exhibits are added to those that are in the folder already.
    """
    from simulations import engine, secret
    from simulations.reproduce import command, papers
    from simulations.study import estimate

    terminal = Console()
    if paper is None:
        command.show_papers(terminal)
        return
    engine.quiet()
    parts = papers.plan(
        paper, exhibits or (), secret.overrides(sets or ()), scale=scale, seeds=seeds
    )
    if dry_run:
        for part in parts:
            estimate.show(terminal, part.design)
        return
    folder = out or Path("runs") / paper
    facts = command.perform(
        parts, folder, terminal, scale=scale, resume=resume, address=address, at_once=at_once
    )
    command.show(terminal, facts, folder)
    if facts["failed"]:
        raise typer.Exit(1)
