"""``fedenc attack``: attacks on a run or a method, and a folder with what they found."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fedenc import attacks, documents, provenance
from fedenc.attacks import recogniser
from fedenc.attacks.base import Attack, Knowledge
from fedenc.attacks.judge import Judge, Scored
from fedenc.attacks.suite import OnProgress, left_out, run
from fedenc.attacks.target import Target
from fedenc.cli import assignment
from fedenc.errors import AttackError, TrainingError
from fedenc.files import write_atomically
from simulations import leakage, report

SCHEMA = 2  # of attacks.json; see docs/attacks.md. 1 had no digest
FACTS, IMAGES = "attacks.json", "attacks.parquet"


@dataclass(frozen=True)
class Attacked:
    """What attacks found, and where it is written."""

    folder: Path
    facts: dict[str, Any]


def chosen(names: str) -> list[Attack]:
    """The attacks that ``--attacks`` asks for: ``quick``, ``all``, or names separated by commas,
    each with parameters if need be: ``NAME:KEY=VALUE:KEY=VALUE``.

    Raises:
        AttackError: a name that no attack has, or a parameter that it does not take.
    """
    if names == "quick":
        return leakage.quick()
    if names == "all":
        return [attacks.make(name) for name in attacks.names()]
    found = [_made(text.strip()) for text in names.split(",")]
    if repeated := [one.name for i, one in enumerate(found) if one.name in _names(found[:i])]:
        raise AttackError(f"--attacks names {repeated[0]} twice; use another --out for the second")
    return found


def _names(found: Sequence[Attack]) -> set[str]:
    return {one.name for one in found}


def _made(text: str) -> Attack:
    name, *settings = text.split(":")
    return attacks.make(name, **dict(map(assignment, settings)))


def attack(
    target: Target,
    wanted: Sequence[Attack],
    folder: Path,
    *,
    title: str,
    seed: int = 0,
    device: torch.device | None = None,
    on_progress: OnProgress = lambda name, done, text: None,
) -> Attacked:
    """Attack a target; write ``attacks.json``, ``attacks.parquet``, pictures and ``report.html``.

    Args:
        folder: made if it does not exist; what an earlier, interrupted run finished there is kept.
        title: what is attacked, for people.
        seed: of everything random in attacks and controls.
        device: where attacks compute; None: a GPU if there is one.

    Raises:
        AttackError: none of the attacks applies, or the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise AttackError(f"--out {folder} is a file; name a folder")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reasons = {one.name: left_out(one, target) for one in wanted}
    if all(reasons.values()):
        text = "; ".join(f"{name} {reason}" for name, reason in reasons.items())
        raise AttackError(f"none of the attacks applies: {text}")
    judge = Judge(target, _recogniser(target, wanted, seed, device, on_progress), seed)
    scored = list(
        run(wanted, judge, folder / "work", seed=seed, device=device, on_progress=on_progress)
    )
    facts = {
        "schema": SCHEMA,
        "title": title,
        "images": len(target.uploads),
        "owners": len(target.protections),
        "public": 0 if target.public is None else len(target.public.labels),
        "recognised_plain": judge.recognised_plain,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
        "rows": [one.row for one in scored],
    }
    _write(folder, facts, scored)
    return Attacked(folder, facts)


def _recogniser(
    target: Target,
    wanted: Sequence[Attack],
    seed: int,
    device: torch.device,
    on_progress: OnProgress,
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A classifier of the attacker's own public images, where he has enough of them, and where
    there are more than the quick attacks to judge."""
    public = target.public
    if public is None or len(public.labels) < recogniser.LEAST or all(a.quick for a in wanted):
        return None
    on_progress("recogniser", 0.0, f"a classifier of {len(public.labels):,} plain public images")
    try:
        trained = recogniser.train(public, seed=seed, device=device)
    except TrainingError as error:  # images that are too small, or all of one class
        on_progress("recogniser", 1.0, f"none: {error}")
        return None
    on_progress("recogniser", 1.0, "done")
    return trained


def _write(folder: Path, facts: dict[str, Any], scored: Sequence[Scored]) -> None:
    pictures = {str(one.row["attack"]): one.picture for one in scored if one.picture is not None}
    for name, content in pictures.items():
        write_atomically(folder / "pictures" / f"{name}.png", content, mode=0o600)
    tables = [one.images for one in scored if one.images is not None]
    if tables:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables(tables, promote_options="default"), sink)
        write_atomically(folder / IMAGES, sink.getvalue().to_pybytes(), mode=0o600)
    page = report.of_attacks(facts, pictures).encode()
    write_atomically(folder / report.REPORT, page, mode=0o600)
    text = json.dumps(documents.sealed(facts), indent=2, allow_nan=False)
    write_atomically(folder / FACTS, text.encode() + b"\n", mode=0o600)


def read(folder: Path) -> dict[str, Any]:
    """The content of ``attacks.json``; AttackError if it is damaged."""
    try:
        facts = documents.unsealed((folder / FACTS).read_bytes(), since="schema")
        if not all(row["attack"] for row in facts["rows"]):
            raise ValueError("a row names no attack")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AttackError(f"{folder / FACTS} is damaged ({error}); attack again") from None
    return facts


def report_again(folder: Path) -> str:
    """The report of what attacks found, from the files in its folder.

    Raises:
        AttackError: ``attacks.json`` is damaged.
    """
    facts = read(folder)
    names = [row["attack"] for row in facts["rows"]]
    paths = {name: folder / "pictures" / f"{name}.png" for name in names}
    pictures = {name: path.read_bytes() for name, path in paths.items() if path.exists()}
    return report.of_attacks(facts, pictures)


def listing(
    shape: tuple[int, int, int] = (3, 32, 32),
) -> list[dict[str, str]]:
    """Every attack with what it needs, what it applies to, and its cost."""
    from fedenc import ciphers
    from fedenc.attacks.base import Method
    from fedenc.keys import POLICIES

    rows = []
    for name in attacks.names():
        one = attacks.make(name)
        applies: dict[str, list[str]] = {}
        for cipher in ciphers.names():
            if cipher == "none":
                continue
            built = ciphers.make(cipher)
            fitting = tuple(
                policy
                for policy in POLICIES
                if one.unsuitable(Method(cipher, built, policy, shape, built.params())) is None
            )
            if fitting:
                key = "any keys" if fitting == POLICIES else "keys " + " or ".join(fitting)
                applies.setdefault(key, []).append(cipher)
        every = len(ciphers.names()) - 1
        texts = [
            f"{'every cipher' if len(found) == every else ', '.join(found)} ({keys})"
            for keys, found in applies.items()
        ]
        shared = Method("transformation", None, None, shape)
        if Knowledge.NETWORK in one.knowledge or one.unsuitable(shared) is None:
            texts.append("the shared network")
        rows.append(
            {
                "attack": name,
                "what": (type(one).__doc__ or "").strip().partition("\n")[0].replace("``", ""),
                "knowledge": ", ".join(sorted(k.value for k in one.knowledge)) or "uploads alone",
                "methods": "; ".join(texts),
                "cost": one.cost,
                "source": one.source,
            }
        )
    return rows
