"""The library's own commands: keys, files, ciphers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from fedenc.errors import CipherError, KeyfileError
from fedenc.keys import POLICIES, KeyRing, keyfile

if TYPE_CHECKING:
    from fedenc.files import FileSummary

app = typer.Typer(add_completion=False)

PASSPHRASE = "FEDENC_PASSPHRASE"

_Keyfile = Annotated[Path, typer.Option("--keyfile", help="Made by: fedenc keygen.")]
_Processes = Annotated[
    int | None,
    typer.Option(min=1, help="How many work at once; by default the number of files decides."),
]


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(help="The keyfile to make; it must not exist.")],
    participant: Annotated[int, typer.Option(min=0, help="Whose key it is.")] = 0,
    passphrase: Annotated[
        bool,
        typer.Option("--passphrase", help=f"Ask for one, or take ${PASSPHRASE}, to protect it."),
    ] = False,
) -> None:
    """Make a keyfile: 32 random bytes that only you can read."""
    ring = KeyRing.generate(participant)
    ring.save(file, _passphrase(confirm=True) if passphrase else None)
    print(f"{file}: fingerprint {ring.fingerprint}, participant {participant}")


@app.command()
def encrypt(
    source: Annotated[Path, typer.Argument(help="A PNG, WebP, BMP or JPEG file, or a folder.")],
    target: Annotated[Path, typer.Argument(help="A new file (lossless), or a folder.")],
    key: _Keyfile,
    cipher: Annotated[str, typer.Option(help="See: fedenc ciphers.")] = "pixel",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="For the cipher; repeatable."),
    ] = None,
    policy: Annotated[
        str, typer.Option("--keys", help="Which images share a key: image (none), client, same.")
    ] = "image",
    suffix: Annotated[
        str, typer.Option("--format", help="Format of encrypted files: png, webp or bmp.")
    ] = "png",
    processes: _Processes = None,
) -> None:
    """Encrypt images; a manifest beside them holds what decryption needs, except the key."""
    from fedenc.ciphers import make
    from fedenc.ciphers.files import encryption

    chosen = make(cipher, **dict(map(assignment, param or ())))
    if policy not in POLICIES:
        raise CipherError(f"--keys is {policy!r}, expected one of {', '.join(POLICIES)}")
    ring = _load(key)
    with _bar("encrypting") as bar:
        summary = encryption.encrypt(
            source,
            target,
            chosen,
            ring,
            policy=policy,
            suffix="." + suffix.removeprefix(".").lower(),
            processes=processes,
            progress=_advance(bar),
        )
    _tell("encrypted", summary)


@app.command()
def decrypt(
    source: Annotated[Path, typer.Argument(help="An encrypted file or folder.")],
    target: Annotated[Path, typer.Argument(help="A file or folder to write.")],
    key: _Keyfile,
    processes: _Processes = None,
) -> None:
    """Decrypt images; the method and its parameters come from the manifest."""
    from fedenc.ciphers.files import encryption

    ring = _load(key)
    with _bar("decrypting") as bar:
        summary = encryption.decrypt(
            source, target, ring, processes=processes, progress=_advance(bar)
        )
    _tell("decrypted", summary)


@app.command()
def ciphers(
    size: Annotated[
        str, typer.Option(metavar="HEIGHTxWIDTH", help="Size of the RGB images, in pixels.")
    ] = "32x32",
) -> None:
    """List the ciphers: key space for a size of image, and what each allows."""
    from fedenc.ciphers import make, names

    height, width = _size(size)
    table = Table(box=None)
    table.add_column("cipher", style="bold", no_wrap=True)
    table.add_column("key space", justify="right", no_wrap=True)
    table.add_column("effective", justify="right", no_wrap=True)
    for heading in ("decrypts", "keys", "augment after"):
        table.add_column(heading)
    table.add_column("parameters", no_wrap=True)
    for name in names():
        one = make(name)
        table.add_row(
            name,
            f"2^{one.key_space_log2(3, height, width):.1f}",
            f"2^{one.effective_bits(3, height, width):.1f}",
            "exactly" if one.exact else "nearly",
            "any" if one.policies == POLICIES else ", ".join(one.policies),
            ", ".join(one.augmentations) or "no",
            "\n".join(f"{key}={value}" for key, value in one.params().items()),
        )
    console = Console()
    console.print(table)
    console.print(
        f"\nkey space: for one RGB image of {height}×{width} pixels\n"
        "effective: how many keys a search has to try; there are only 2^256 master keys. A large "
        "key space is not security: every method here is visual protection only.\n"
        "augment after: what a server may do to ciphertexts with independent keys; anything else "
        "has to be done to the plain image\n"
        "parameters: with their defaults; set them by --param NAME=VALUE",
        highlight=False,
    )


@app.command()
def gallery(
    images: Annotated[list[Path], typer.Argument(help="PNG, WebP, BMP or JPEG files.")],
    out: Annotated[Path, typer.Option("--out", help="The picture to write: png, webp or bmp.")],
    cipher: Annotated[
        list[str] | None, typer.Option(help="Show only this one; repeatable; by default all.")
    ] = None,
    size: Annotated[
        int, typer.Option(min=16, help="Pixels per side; larger images are scaled down first.")
    ] = 128,
    key: Annotated[
        Path | None, typer.Option("--keyfile", help="By default a new key that is not kept.")
    ] = None,
) -> None:
    """Show every cipher side by side, under one key and independent keys, with SSIM."""
    from fedenc.ciphers import gallery as drawn
    from fedenc.images import lossless, sheets

    lossless.check_lossless(out.suffix)
    ring = KeyRing.generate() if key is None else _load(key)
    plain = [drawn.shrink(lossless.read(path)[0].expand(3, -1, -1), size) for path in images]
    rows = [drawn.measure(plain, ring, one) for one in drawn.built(cipher or ())]
    sheet = drawn.draw(plain, rows, cell=size)
    lossless.write(out, sheets.tensor(sheet), "RGB")
    print(f"{out}: {len(rows)} ciphers, {len(plain)} images, {sheet.width}×{sheet.height} pixels")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or any model directory.")],
    images: Annotated[list[Path], typer.Argument(help="Image files of the model's size.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 1,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirror image.")] = False,
    resize: Annotated[
        bool, typer.Option("--resize", help="Scale plain images to the model's size.")
    ] = False,
) -> None:
    """Classify images, plain or encrypted, by a trained model: prints file, class and score."""
    from fedenc.training.classifier import Classifier

    failed = 0
    for guess in Classifier(model, flip=flip, resize=resize)(images):
        if guess.error:
            failed += 1
            print(f"fedenc: {guess.error}", file=sys.stderr)
        for name, score in guess.classes[:top]:
            print(f"{guess.path}\t{name}\t{score:.3f}")
    if failed:
        raise typer.Exit(1)


def _load(path: Path) -> KeyRing:
    return KeyRing.load(path, _passphrase() if keyfile.is_sealed(path) else None)


def _passphrase(confirm: bool = False) -> str:
    """From the environment, or asked for at the terminal."""
    given = os.environ.get(PASSPHRASE)
    if given is not None:
        return given
    try:
        return str(
            typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
        )
    except typer.Abort:
        raise KeyfileError(
            f"no passphrase given; type it, or set {PASSPHRASE} where there is no terminal"
        ) from None


def assignment(text: str) -> tuple[str, bool | int | float | str]:
    """``NAME=VALUE`` with the value as true, false, a number, or else text."""
    name, sign, value = text.partition("=")
    if not sign:
        raise CipherError(f"a parameter is {text!r}, expected NAME=VALUE")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().replace("×", "x").partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise CipherError(f"--size is {text!r}, expected HEIGHTxWIDTH such as 32x32")
    return int(height), int(width)


def _bar(what: str) -> Progress:
    console = Console(stderr=True)
    columns = (f"{what}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _advance(bar: Progress) -> Callable[[int, int], None]:
    task = bar.add_task("", total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


def _tell(what: str, summary: FileSummary) -> None:
    """Say how many files succeeded, list those that failed, and exit with 1 if there are any."""
    already = f", {summary.skipped} there already" if summary.skipped else ""
    print(f"{what} {_files(summary.done)}{already}")
    if summary.failed:
        print(f"fedenc: {_files(len(summary.failed))} failed:", file=sys.stderr)
        for name, reason in summary.failed:
            print(f"  - {name}: {reason}", file=sys.stderr)
        raise typer.Exit(1)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
