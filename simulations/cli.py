"""The ``fedenc`` command: simulations here, together with the library's own commands."""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

import fedenc.cli
import simulations.study.cli
from fedenc import threads
from fedenc.errors import AttackError, DataError, FedencError, ScenarioError
from fedenc.files import write_atomically
from simulations import interrupts

if TYPE_CHECKING:
    from fedenc.attacks.target import Target
    from simulations.attacked import Sample

app = typer.Typer(
    name="fedenc",
    help="Simulate owners who encrypt their images and a server that trains on what it cannot see.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.registered_commands += fedenc.cli.app.registered_commands

_debug = False
_DEBUG = Annotated[bool, typer.Option("--debug", help="Show a trace with errors.")]


@app.callback()
def options(debug: _DEBUG = False) -> None:
    """Options that every command takes."""
    global _debug
    _debug = debug


@app.command()
def simulate(
    scenario: Annotated[
        str | None, typer.Argument(help="A preset's name or a TOML file [default: photos].")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results [default: runs/NAME-TIME].")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run of the same scenario.")
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train on the same images, unencrypted.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write curves, to DIR/tensorboard.")
    ] = False,
) -> None:
    """Run one experiment: upload, training, inference; results as JSON, Parquet and a table."""
    from simulations import engine, presets, secret

    engine.quiet()
    name, chosen = presets.resolve(scenario, secret.overrides(sets or ()))
    from simulations import console, run, run_folder
    from simulations.experiment import prepare

    experiment = prepare(chosen, name)
    folder = out or _default_folder(name, experiment.scenario.hash(), resume)
    seed = run_folder.recorded_seed(folder) if resume else None
    if chosen.encryption.seed is None and seed is not None:
        experiment = experiment.with_seed(seed)
    terminal = Console()
    console.announce(terminal, experiment, folder)
    with console.ProgressDisplay(terminal) as display:
        done = run.simulate(
            experiment,
            folder,
            resume=resume,
            baselines=baselines,
            tensorboard=tensorboard,
            on_event=display,
        )
    console.show(terminal, done.result, done.folder)


app.registered_commands += simulations.study.cli.app.registered_commands


@app.command()
def attack(
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a finished run; none: attack a method.")
    ] = None,
    cipher: Annotated[
        str | None, typer.Option(help="Without a run: the method. See: fedenc ciphers.")
    ] = None,
    keys: Annotated[
        str, typer.Option("--keys", help="Without a run: image, client or same.")
    ] = "image",
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Without a run; repeatable."),
    ] = None,
    names: Annotated[
        str, typer.Option("--attacks", help="quick, all, or names with commas between them.")
    ] = "quick",
    images: Annotated[int, typer.Option(min=2, help="How many uploads to attack.")] = 200,
    public: Annotated[
        int, typer.Option(min=2, help="How many images the attacker has of his own, at most.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random in attacks.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results [default: in the run's, or in runs/].")
    ] = None,
) -> None:
    """Attack a run's uploads, or a method; repeat the command to continue an interrupted one."""
    from simulations import attack as attacking
    from simulations import attacked, console, report

    wanted = attacking.chosen(names)
    if (run is None) == (cipher is None):
        raise AttackError("name either the folder of a run or a method by --cipher, and not both")
    sample = attacked.Sample(images, public, seed=seed)
    if run is not None:
        if sets:
            raise AttackError("--set changes a method's scenario, but a run has its own; leave it")
        target, title = attacked.of_run(run, sample), f"the run {run}"
        folder = out or run / "attacks"
    else:
        target, title = _method(f"{cipher}", keys, sets or (), sample)
        folder = out or Path("runs") / f"attack-{cipher}-{keys}"
    terminal = Console()
    terminal.print(f"Attacking {title}: {len(target.uploads)} uploads, into {folder}")
    with console.ProgressDisplay(terminal) as display:
        done = attacking.attack(
            target, wanted, folder, title=title, seed=seed, on_progress=display.attack
        )
    console.show_attacks(terminal, done.facts["rows"])
    terminal.print(f"Report: {folder / report.REPORT}", soft_wrap=True, highlight=False)


def _method(cipher: str, keys: str, sets: Sequence[str], sample: "Sample") -> "tuple[Target, str]":
    """A method without a run, on the images of the default scenario or those that ``sets`` name."""
    from simulations import attacked, presets, secret
    from simulations.experiment import prepare

    own = [f"encryption.cipher={cipher}", f"encryption.keys={keys}", "model.compare=[]"]
    experiment = prepare(presets.resolve(None, [*own, *secret.overrides(sets)])[1])
    target = attacked.of_method(experiment.population, sample)
    return target, f"{experiment.in_words()} on {experiment.scenario.data.name}"


@app.command("report")
def write_report(
    folder: Annotated[Path, typer.Argument(help="Of a run, a study, or what attacks found.")],
) -> None:
    """Write report.html again, from what is in a folder."""
    from simulations import attack, report, result
    from simulations.reproduce import command as reproducing
    from simulations.study import command

    makers = {
        result.RESULT: report.of_run,
        command.FACTS: command.report_again,
        attack.FACTS: attack.report_again,
        reproducing.FACTS: reproducing.report_again,
    }
    found = next((make for name, make in makers.items() if (folder / name).exists()), None)
    if found is None:
        raise ScenarioError(
            f"{folder} holds none of {', '.join(makers)}; expected the folder of a finished run, "
            "a study or an attack"
        )
    write_atomically(folder / report.REPORT, found(folder).encode(), mode=0o600)
    Console().print(f"{folder / report.REPORT}", soft_wrap=True, highlight=False)


@app.command()
def attacks() -> None:
    """List the attacks: what each knows and applies to, and its cost on a CPU."""
    from simulations import attack as attacking
    from simulations import console

    console.show_listing(Console(), attacking.listing())


transformation = typer.Typer(
    help="The shared transformation network: protection without keys.", no_args_is_help=True
)
app.add_typer(transformation, name="transformation")


@transformation.command("train")
def train_transformation(
    out: Annotated[Path, typer.Argument(help="Folder for the bundle, new or unfinished.")],
    scenario: Annotated[
        str | None, typer.Argument(help="A preset's name or a TOML file [default: ito2021-photos].")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value; repeatable."),
    ] = None,
) -> None:
    """Train classifier and network as the third party; write a bundle with a part for each side."""
    from clients.simulated import Population
    from simulations import console, presets, secret, third_party

    _, chosen = presets.resolve(scenario or third_party.PRESET, secret.overrides(sets or ()))
    terminal = Console()
    terminal.print(f"Training the third party's bundle into {out}", highlight=False)
    with console.ProgressDisplay(terminal) as display:
        measured = third_party.make(Population(chosen), out, display)
    console.show_bundle(terminal, measured, out)


@transformation.command("protect")
def protect_images(
    bundle: Annotated[Path, typer.Argument(help="The bundle, or its participants' folder.")],
    source: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    target: Annotated[Path, typer.Argument(help="A new folder for the protected PNG files.")],
) -> None:
    """Protect image files as a participant does. This cannot be undone."""
    from fedenc.transformation import files
    from fedenc.transformation.bundle import load_transformation

    summary = files.protect(load_transformation(bundle), source, target)
    for name, reason in summary.failed:
        print(f"fedenc: {name}: {reason}", file=sys.stderr)
    print(f"{summary.done} protected images in {target}")
    if summary.failed:
        raise typer.Exit(1)


def _default_folder(name: str, digest: str, resume: bool) -> Path:
    """A new folder under ``runs/``, or the newest one of the same scenario."""
    prefix = f"{name}-{digest[:8]}-"
    if resume:
        earlier = sorted(Path("runs").glob(f"{prefix}*"))
        if not earlier:
            raise ScenarioError(
                f"no earlier run of this scenario under runs/ ({prefix}*); name its folder by --out"
            )
        return earlier[-1]
    return Path("runs") / f"{prefix}{time.strftime('%Y%m%d-%H%M%S')}"


@app.command("presets")
def list_presets() -> None:
    """List the scenarios that come with fedenc."""
    from simulations import presets

    table = Table(box=None)
    table.add_column("preset", style="bold", no_wrap=True)
    table.add_column("what it runs")
    for name in presets.names():
        table.add_row(name, presets.describe(name))
    Console().print(table)


@app.command()
def doctor() -> None:
    """Show versions, devices and data found, and whether Flower and Ray can start."""
    from simulations import doctor as checks

    if not checks.report(Console()):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: one command, and its exit code."""
    threads.spin_briefly()  # no command has imported torch yet
    interrupts.install()
    code = execute(sys.argv[1:])
    if code == interrupts.EXIT_CODE:
        interrupts.end_processes()
    sys.stdout.flush()
    # Ray and Flower leave threads running when they are interrupted; nothing is left to be saved.
    os._exit(code)


def execute(arguments: Sequence[str]) -> int:
    """One command in this process; a user's error ends in one line and its exit code."""
    try:
        code = app(list(arguments), prog_name="fedenc", standalone_mode=False)
    except FedencError as error:
        return _fail(error)
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = interrupts.EXIT_CODE
    except Exception as error:
        return _usage(error)
    if code == interrupts.EXIT_CODE:  # typer's own word for Ctrl-C
        interrupts.tell(arguments)
    return code if isinstance(code, int) else 0


def _fail(error: FedencError) -> int:
    if _debug:
        traceback.print_exc()
    if isinstance(error, ScenarioError) and len(error.problems) > 1:
        print(f"fedenc: {len(error.problems)} problems with the scenario:", file=sys.stderr)
        for problem in error.problems:
            print(f"  - {problem}", file=sys.stderr)
    else:
        print(f"fedenc: {error}", file=sys.stderr)
    return error.exit_code


def _usage(error: Exception) -> int:
    """Errors of the command line itself and of the machine, and defects of fedenc."""
    import click

    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, OSError) and error.strerror:
        return _fail(DataError(_of_the_machine(error)))
    if _debug:
        traceback.print_exc()
    text = " ".join(str(error).split())[:300]
    print(
        f"fedenc: unexpected {type(error).__name__}: {text}; this is a defect of fedenc, please "
        "report it with the output of --debug",
        file=sys.stderr,
    )
    return 70


def _of_the_machine(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}; check that the path exists, is yours to use, and has room"


if __name__ == "__main__":
    main()
