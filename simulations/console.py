"""What a person sees: progress during a run, and tables when it is done."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedenc.transformation import bundle
from server.app import Event
from simulations import report, third_party
from simulations.experiment import Experiment
from simulations.run import TRACES

_TITLES = {
    "machines": "check machines",
    "nodes": "start nodes",
    "upload": "upload",
    "training": "train",
    "queries": "answer queries",
    "score": "score",
    "baselines": "baselines",
    "attacks": "attack uploads",
}


class ProgressDisplay:
    """A bar for each phase on a terminal, otherwise a line for each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._ended: set[str] = set()
        self._bars = Progress(
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "ProgressDisplay":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def attack(self, name: str, done: float, text: str) -> None:
        """Show how far an attack is."""
        self(Event(name, done, 1.0, text))

    def __call__(self, event: Event) -> None:
        """Show one event."""
        phase, _, name = event.phase.partition(" ")
        title = f"{_TITLES.get(phase, phase)} {name}".rstrip()
        if event.phase not in self._tasks:
            self._tasks[event.phase] = self._bars.add_task(title, total=event.total, text="")
        task = self._tasks[event.phase]
        self._bars.update(task, completed=event.done, total=event.total, text=event.text)
        if event.done >= event.total and event.phase not in self._ended:
            self._ended.add(event.phase)
            if not self._console.is_terminal:
                self._console.print(f"{title:<15} done   {event.text}".rstrip())


def announce(console: Console, experiment: Experiment, folder: Path) -> None:
    """Say what will run, with all warnings."""
    data = experiment.scenario.data.name
    text = f"Running [bold]{experiment.name}[/bold] on data set [bold]{data}[/bold] into {folder}"
    console.print(text, highlight=False, soft_wrap=True)
    for warning in experiment.warnings:
        console.print(f"[yellow]Warning:[/yellow] {warning}", highlight=False, soft_wrap=True)


def show(console: Console, result: Mapping[str, Any], folder: Path) -> None:
    """Print the result of a run as tables a person understands."""
    console.print()
    console.print(_overview(result))
    if result["accuracy"]:
        console.print(_accuracy(result))
    else:
        console.print("Nobody's queries were answered: there is no accuracy to report.")
    if leakage := result.get("leakage"):
        show_attacks(console, leakage["rows"], f"What leaks: {leakage['images']} uploads attacked")
    if failed := result["clients"]["failed"]:
        console.print(_failures(failed))
        if (traces := folder / TRACES).exists():
            text = f"What participants raised, with traces: {traces}"
            console.print(text, soft_wrap=True, highlight=False)
    console.print(f"Results: {folder}", soft_wrap=True, highlight=False)


def show_attacks(
    console: Console, rows: Sequence[Mapping[str, Any]], title: str = "What leaks"
) -> None:
    """Print what attacks found, and why some found nothing."""
    console.print()
    console.print(_attacks([row for row in rows if row["status"] == "done"], title))
    for row in rows:
        if row["status"] != "done":
            text = f"{row['attack']}: {row['status']}: {row['reason']}"
            console.print(text, soft_wrap=True, highlight=False, markup=False)


def show_listing(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Print the attacks there are."""
    for row in rows:
        console.print(f"[bold]{row['attack']}[/bold] ({row['cost']})", highlight=False)
        lines = {"": row["what"], "knows: ": row["knowledge"], "applies to: ": row["methods"]}
        for heading, text in lines.items():
            console.print(Padding(f"[dim]{heading}[/dim]{text}", (0, 0, 0, 4)), highlight=False)
    console.print(
        "\nIn brackets: what it takes on a CPU for a few hundred small images. Every attacker "
        "knows the method, its parameters and the key policy; see docs/attacks.md.",
        highlight=False,
    )


def _attacks(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    columns = [c for c in report.COLUMNS if any(row.get(c[0]) is not None for row in rows)]
    meanings = "; ".join(f"{heading}: {meaning}" for _, heading, _, meaning in columns)
    table = Table(title=title, caption=meanings, box=box.SIMPLE, padding=(0, 0))
    table.title_justify = table.caption_justify = "left"
    table.add_column("attack", no_wrap=True)
    for _, heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        knows = "".join(f"\n[dim]+ {what}[/dim]" for what in row["knowledge"])
        values = (report.shown(row.get(field), kind) for field, _, kind, _ in columns)
        table.add_row(row["attack"] + knows, *values)
    scored = (row["control"] for row in rows if "ciphertext" in row.get("control", {}))
    if controls := next(scored, None):
        table.add_section()
        for name, text in (("ciphertext", "protected image"), ("another", "another image")):
            values = (report.shown(controls[name].get(f), kind) for f, _, kind, _ in columns)
            table.add_row(f"({text})", *values, style="dim")
    return table


def show_bundle(console: Console, measured: Mapping[str, Any], folder: Path) -> None:
    """Print what was measured of a third party's bundle, and where its parts are."""
    images = "held-out images" if measured.get("held_out", True) else "own training images"
    table = Table(title=f"Accuracy on the third party's {images}", title_justify="left")
    table.add_column("queries")
    table.add_column("accuracy", justify="right")
    for name, text in (
        ("plain", "plain, to the classifier"),
        ("protected", "protected, 8 bits, to the same"),
        ("unrounded", "protected, before rounding to 8 bits"),
        ("foreign", "protected, to a classifier trained without the network"),
    ):
        if (accuracy := measured[f"{name}_accuracy"]) is not None:
            table.add_row(text, f"{accuracy:.1%}")
    console.print()
    console.print(table)
    psnr = inf if measured["psnr"] is None else measured["psnr"]
    console.print(
        f"SSIM between plain and protected: {measured['ssim_uniform7']:.3f} (uniform 7×7), "
        f"{measured['ssim_gaussian11']:.3f} (Gaussian 11×11); PSNR {psnr:.1f} dB",
        highlight=False,
    )
    if measured["collapse"]["collapsed"]:
        console.print(f"[bold]Collapsed:[/bold] {measured['collapse']['reason']}", highlight=False)
    for name, what in (
        (bundle.PARTICIPANTS, "for every participant"),
        (bundle.PROVIDER, "for the provider"),
        (third_party.PICTURES, "plain and protected, to look at; keep it to yourself"),
    ):
        console.print(f"{folder / name}: {what}", soft_wrap=True, highlight=False)


def _overview(result: Mapping[str, Any]) -> Table:
    clients, upload = result["clients"], result["upload"]
    table = Table(show_header=False, title="Run", title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    if result["training"] is None:
        table.add_row("participants", f"{clients['requested']}, who only query")
        table.add_row("protection", result["protection"]["text"])
        name, kind = result["model"]["name"], result["model"]["trained_on"]
        table.add_row("classifier", f"{name}, the third party's, trained on {kind} images")
        return table
    stayed = f", {clients['plain']} of them plain" if clients["plain"] else ""
    table.add_row(
        "participants", f"{clients['uploaded']} of {clients['requested']} uploaded{stayed}"
    )
    table.add_row("protection", result["protection"]["text"])
    speed = upload["clients_per_second"]
    pace = f" in {upload['seconds']:.1f} s ({speed:,.1f} participants/s)" if speed else ""
    text = f"{upload['images']:,} images, {upload['bytes'] / 1e6:,.1f} MB{pace}"
    table.add_row("upload", text)
    for stage, asked in _models(result).items():
        table.add_row(f"training {stage}".rstrip(), _trained(asked))
    return table


def _models(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The run's models by input stage, where there are several to tell apart."""
    further: dict[str, Mapping[str, Any]] = result.get("compared", {})
    return {result["model"]["input"] if further else "": result} | further


def _trained(asked: Mapping[str, Any]) -> str:
    model, training = asked["model"], asked["training"]
    epochs = _count(training["epochs"], "epoch")
    return (
        f"{model['name']} on {training['device']}, {epochs} in {training['seconds']:.1f} s "
        f"({training['images_per_second']:,.0f} images/s), "
        f"final loss {training['final_loss']:.3f}"
    )


def _accuracy(result: Mapping[str, Any]) -> Table:
    several = "compared" in result
    table = Table(title="Accuracy by kind of query", title_justify="left")
    for name in ("model's input", "asked by", "queries")[not several :]:
        table.add_column(name)
    for name in ("images", "accuracy", "by participant"):
        table.add_column(name, justify="right")

    def row(*cells: str, stage: str = "", style: str | None = None) -> None:
        table.add_row(*(stage, *cells)[not several :], style=style)

    for stage, asked in _models(result).items():
        for who, accuracies in (
            ("members", asked["accuracy"]),
            ("outsiders", asked.get("outsiders", {})),
        ):
            for condition, a in accuracies.items():
                if condition == "agreement":
                    continue
                spread = f"{a['per_client_mean']:.1%} ± {a['per_client_std']:.1%}"
                row(who, condition, f"{a['queries']:,}", f"{a['overall']:.1%}", spread, stage=stage)
        agreement = asked["agreement"]
        if agreement["plain_vs_encrypted"] is not None:
            share, pairs = f"{agreement['plain_vs_encrypted']:.1%}", f"{agreement['pairs']:,}"
            row("members", "both agree", pairs, share, "", stage=stage)
        table.add_section()
    row("", "guessing", "", f"{result['chance']:.1%}", "", style="dim")
    if baselines := result.get("baselines"):
        alone = baselines["alone"]
        table.add_section()
        count = f"{baselines['test_images']:,}"
        row("baseline", "plain, all data together", count, f"{baselines['central_plain']:.1%}", "")
        if alone["owners"]:
            who = "plain, each owner alone"
            if alone["too_small"]:
                who += f" ({alone['too_small']} have too few images)"
            spread = f"{alone['mean']:.1%} ± {alone['std']:.1%}"
            row("baseline", who, count, f"{alone['mean']:.1%}", spread)
    return table


def _failures(failed: list[Mapping[str, Any]]) -> Table:
    table = Table(title=f"{_count(len(failed), 'participant')} failed", title_justify="left")
    for name in ("participant", "phase", "reason"):
        table.add_column(name)
    for failure in failed[:20]:
        table.add_row(str(failure["id"]), failure["phase"], failure["reason"])
    if len(failed) > 20:
        table.add_row("…", "", f"{len(failed) - 20} more in result.json")
    return table


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
