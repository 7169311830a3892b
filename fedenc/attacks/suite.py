"""Running attacks on a target, one after another; what is finished is not run again."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fedenc import documents
from fedenc.attacks.base import Attack, Findings, Knowledge, Means
from fedenc.attacks.judge import Judge, Scored, describe
from fedenc.attacks.target import Target
from fedenc.errors import AttackError, FedencError
from fedenc.files import write_atomically

VERSION = 1  # of scoring: rows of another one are not taken over
OnProgress = Callable[[str, float, str], None]


def left_out(attack: Attack, target: Target) -> str | None:
    """Why an attack cannot be run on a target, as the end of a sentence; None if it can."""
    if reason := attack.unsuitable(target.method):
        return reason
    needed = attack.needs(target.method)
    if lacking := target.lacking(needed):
        return f"needs what is not there: {', '.join(sorted(one.value for one in lacking))}"
    if Knowledge.PAIRS in needed and not len(target.known):
        return "needs known pairs, and there are too few images to know some of them"
    if not len(target.hidden(needed)):
        return "knows all images from the start, as there are too few owners"
    return None


def attempt(attack: Attack, judge: Judge, means: Means) -> Scored:
    """Run one attack and score it. What an attack raises becomes its result: a report hides
    nothing, and one attack's failure does not cost another's result."""
    target = judge.target
    if reason := left_out(attack, target):
        return Scored(describe(attack, target) | {"status": "does not apply", "reason": reason})
    start = time.perf_counter()
    try:
        findings = attack.run(target.observe(attack.needs(target.method)), means)
        _check(findings, target)
        return judge.score(attack, findings, time.perf_counter() - start)
    except Exception as error:
        text = str(error) if isinstance(error, FedencError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, FedencError):
            logging.getLogger(__name__).exception("attack %s", attack.name)
        return Scored(describe(attack, target) | {"status": "failed", "reason": text})


def _check(findings: Findings, target: Target) -> None:
    """AttackError unless the findings have the shapes that they must have."""
    wanted = {
        "images": (len(target.uploads), *target.method.shape),
        "links": None if target.candidates is None else (len(target.candidates),),
        "members": None if target.candidates is None else (len(target.candidates),),
    }
    for name, shape in wanted.items():
        found: Tensor | None = getattr(findings, name)
        if found is not None and tuple(found.shape) != shape:
            raise AttackError(f"{name} have shape {tuple(found.shape)}, expected {shape}")
    if findings.links is not None and not (
        -1 <= int(findings.links.min()) <= int(findings.links.max()) < len(target.uploads)
    ):
        raise AttackError(
            f"links name uploads that are not there; expected −1 to {len(target.uploads) - 1}"
        )


def run(
    attacks: Sequence[Attack],
    judge: Judge,
    folder: Path,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    on_progress: OnProgress = lambda name, done, text: None,
) -> Iterator[Scored]:
    """Run attacks one after another; what an earlier run finished in this folder is not run again.

    Args:
        attacks: which, in their order.
        judge: of the target.
        folder: holds each attack's result and, while it runs, its checkpoints.
        seed: of everything random in attacks.
        device: where they compute; None: the CPU.
        on_progress: told an attack's name, its share that is done, and what goes on.

    Yields:
        Each attack's result.
    """
    for attack in attacks:
        own = folder / attack.name
        identity = _identity(attack, judge, seed)
        scored = _finished(own, identity)
        if scored is None:
            means = Means(
                seed,
                device or torch.device("cpu"),
                own / "work" / identity[:12],
                lambda done, text, name=attack.name: on_progress(name, done, text),  # type: ignore[misc]
            )
            scored = attempt(attack, judge, means)
            # What failed is written too, and tried again the next time.
            _keep(own, None if scored.row["status"] == "failed" else identity, scored)
        on_progress(attack.name, 1.0, scored.row["status"])
        yield scored


def _identity(attack: Attack, judge: Judge, seed: int) -> str:
    """Decides the result of an attack: its parameters, and all that is attacked and scored with."""
    settings = [VERSION, attack.name, attack.params(), seed, judge.identity]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _keep(folder: Path, identity: str | None, scored: Scored) -> None:
    """Write a result that only its owner can read, for it shows owners' images. The row comes last:
    if it is there, all is there. Checkpoints of what is finished go."""
    table = None
    if scored.images is not None:
        sink = pa.BufferOutputStream()
        pq.write_table(scored.images, sink)
        table = sink.getvalue().to_pybytes()
    for name, content in (("images.parquet", table), ("picture.png", scored.picture)):
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_atomically(folder / name, content, mode=0o600)
    facts = {"identity": identity, "row": scored.row, "images": table and _sha256(table)}
    text = json.dumps(documents.sealed(facts), allow_nan=False)
    write_atomically(folder / "row.json", text.encode(), mode=0o600)
    if identity is not None:
        shutil.rmtree(folder / "work", ignore_errors=True)


def _finished(folder: Path, identity: str) -> Scored | None:
    """The result of an earlier run; None if there is none of the same attack."""
    try:
        kept = documents.unsealed((folder / "row.json").read_bytes())
        if kept["identity"] != identity:
            return None
        images, picture = folder / "images.parquet", folder / "picture.png"
        table = images.read_bytes() if kept["images"] else None
        if table and _sha256(table) != kept["images"]:
            return None
        return Scored(
            kept["row"],
            pq.read_table(pa.BufferReader(table)) if table else None,
            picture.read_bytes() if picture.exists() else None,
        )
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid):
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
