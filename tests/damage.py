"""Damage every kind of file that fedenc reads, at random: it ends in an error that says so, or in
the truth. ``python -m tests.damage --count 10000`` does more of it than the tests do.
"""

import argparse
import json
import operator
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from fedenc import documents, models
from fedenc.attacks import suite
from fedenc.ciphers import make
from fedenc.ciphers.files import encryption, manifest
from fedenc.data import parquet
from fedenc.errors import FedencError
from fedenc.keys import KeyRing
from fedenc.scenario import load
from fedenc.shard import TRAIN, seal
from fedenc.training import checkpoint, model_files
from fedenc.transformation import bundle
from server.pool import Pool
from simulations import result, run_folder
from simulations.study import command

RING = KeyRing(bytes(range(32)), 2)


@dataclass(frozen=True)
class Kind:
    """One file to damage, and what reads it.

    Attributes:
        read: what fedenc makes of the file, as a value that can be compared.
        true: whether what was found, first, is no lie when that is what was written, second.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    true: Callable[[Any, Any], bool] = operator.eq


def strike(kind: Kind, draw: np.random.Generator) -> str:
    """Damage a file, read it, and mend it: what came of it, ``refused`` or ``true``.

    Raises:
        AssertionError: something else was read than was written.
        Exception: anything that is not fedenc's own error.
    """
    whole, truth = kind.path.read_bytes(), kind.read()
    kind.path.write_bytes(damaged(whole, draw))
    try:
        found = kind.read()
    except FedencError:
        return "refused"
    finally:
        kind.path.write_bytes(whole)
    assert kind.true(found, truth), f"{kind.name} was read as {str(found)[:300]}"
    return "true"


def damaged(data: bytes, draw: np.random.Generator) -> bytes:
    """Flips, cuts, overwriting, zeros and repetitions, in random places."""
    content = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        start, length = int(draw.integers(len(content) + 1)), int(draw.integers(1, 64))
        match int(draw.integers(6)):
            case 0 | 1 if content:
                content[start % len(content)] ^= 1 << int(draw.integers(8))
            case 2:
                del content[start:]
            case 3:
                del content[start : start + length]
            case 4:
                kept = len(content[start : start + length])
                content[start : start + length] = draw.bytes(kept) if length % 2 else bytes(kept)
            case _:
                content[start:start] = content[start : start + length]
    return bytes(content)


def kinds(folder: Path) -> list[Kind]:
    """Sound files of every kind, in a folder that is made."""
    makers = (_keys, _encrypted, _trained, _bundle, _pool, _run, _study, _attack, _data)
    return [kind for make_kinds in makers for kind in make_kinds(folder / make_kinds.__name__)]


def _keys(folder: Path) -> Iterator[Kind]:
    folder.mkdir(parents=True)
    RING.save(folder / "key")
    yield Kind("keyfile", folder / "key", lambda: KeyRing.load(folder / "key"))


def _encrypted(folder: Path) -> Iterator[Kind]:
    photos, sent, back = folder / "photos", folder / "sent", folder / "back"
    photos.mkdir(parents=True)
    draw = np.random.default_rng(1)
    for number in range(3):
        pixels = draw.integers(0, 256, (8, 9, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.bmp")
    encryption.encrypt(photos, sent, make("pixel"), RING, suffix=".bmp")

    def read() -> dict[str, bytes | str]:
        shutil.rmtree(back, ignore_errors=True)
        report = encryption.decrypt(sent, back, RING)
        pixels = {path.name: Image.open(path).tobytes() for path in back.rglob("*.bmp")}
        return pixels | {Path(name).name: "failed" for name, _ in report.failed}

    def true(found: dict[str, bytes | str], truth: dict[str, bytes | str]) -> bool:
        """Every image as it was, or said to have failed."""
        names = found.keys() == truth.keys()
        return names and all(found[name] in (truth[name], "failed") for name in truth)

    yield Kind("manifest", sent / manifest.NAME, read, true)
    yield Kind("encrypted image", sent / "1.bmp", read, true)


def _trained(folder: Path) -> Iterator[Kind]:
    folder.mkdir(parents=True)
    model = models.build("tiny", channels=3, classes=2, size=(12, 12))
    model_files.save_model(folder, model, details={"classes": ["cat", "dog"]})

    def read() -> Any:
        found, details = model_files.load_model(folder)
        return found.architecture, model_files.weights_sha256(found), details

    yield Kind("model's weights", folder / model_files.WEIGHTS, read)
    yield Kind("model's configuration", folder / model_files.CONFIG, read)
    saved = folder / "checkpoint"
    saved.write_bytes(checkpoint.pack({"a": torch.arange(50.0)}, {"version": 3, "step": 7}))

    def resumed() -> Any:
        tensors, document = checkpoint.unpack(saved.read_bytes())
        return {name: tensor.tolist() for name, tensor in tensors.items()}, document

    yield Kind("checkpoint", saved, resumed)


def _bundle(folder: Path) -> Iterator[Kind]:
    architecture = {"widths": [4, 4]}
    bundle.save_transformation(
        folder,
        bundle.build("unet", architecture),
        method="unet",
        architecture=architecture,
        size=(8, 8),
        classes=("cat", "dog"),
        info={"config": {"alpha": 0.5}},
    )

    def read() -> Any:
        found = bundle.load_transformation(folder)
        return found.digest, found.info

    yield Kind("bundle's weights", folder / bundle.PARTICIPANTS / bundle.WEIGHTS, read)
    yield Kind("bundle's configuration", folder / bundle.PARTICIPANTS / bundle.INFO, read)


def _pool(folder: Path) -> Iterator[Kind]:
    from server.pool import PoolWriter

    draw = np.random.default_rng(2)
    writer = PoolWriter(folder)
    for i in range(3):
        shard = seal(
            participant=i,
            purpose=TRAIN,
            nonce=bytes([i] * 16),
            cipher="pixel",
            params={},
            images=draw.integers(0, 256, (2, 3, 4, 4), np.uint8),
            ids=np.arange(2),
            labels=np.arange(2),
            original=(3, 4, 4),
        )
        writer.append([shard])
    writer.close()

    def read() -> list[bytes]:
        return [shard.images.tobytes() for shard in Pool(folder).shards()]

    def true(found: list[bytes], truth: list[bytes]) -> bool:
        """A pool ends before its first damaged shard, and says how many it holds."""
        return found == truth[: len(found)]

    yield Kind("pool", folder / "pool.bin", read, true)
    yield Kind("pool's index", folder / "index.jsonl", read, true)


def _run(folder: Path) -> Iterator[Kind]:
    scenario = load(None, ["encryption.seed=7"])
    with run_folder.occupied(folder, scenario, False):
        pass
    record = folder / run_folder.SCENARIO

    def resumed() -> Any:
        with run_folder.occupied(folder, scenario, True):
            return run_folder.recorded_seed(folder)

    yield Kind("scenario.json, to resume", record, resumed)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [0, 1], "correct": [3, 4]}), sink)
    result.write_participants(folder, sink.getvalue().to_pybytes(), {"schema": 2, "share": 0.25})

    def read() -> Any:
        facts = result.read(folder)
        return facts, result.participants(folder, facts)

    yield Kind("result.json", folder / result.RESULT, read)
    yield Kind("clients.parquet", folder / result.CLIENTS, read)


def _study(folder: Path) -> Iterator[Kind]:
    folder.mkdir(parents=True)
    path = folder / command.FACTS
    path.write_bytes(command.as_json({"schema": 2, "plots": [], "seconds": 1.5}))
    yield Kind("study.json", path, lambda: command.read(folder))


def _attack(folder: Path) -> Iterator[Kind]:
    folder.mkdir(parents=True)
    facts = {"identity": "a", "row": {"attack": "link", "linked": 0.5}, "images": None}
    (folder / "row.json").write_text(json.dumps(documents.sealed(facts)))

    def true(found: Any, truth: Any) -> bool:
        """A result that is not whole is as none: the attack runs again."""
        return found in (None, truth)

    yield Kind("attack's row", folder / "row.json", lambda: suite._finished(folder, "a"), true)


def _data(folder: Path) -> Iterator[Kind]:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(3)
    encoded = []
    for _ in range(10):
        content = BytesIO()
        Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8)).save(content, "PNG")
        encoded.append({"bytes": content.getvalue()})
    table = pa.table({"img": encoded, "label": list(range(10))})
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}-0.parquet", write_page_checksum=True)

    def read() -> Any:
        decoded = parquet.source("cifar10", folder, None).decode()
        parts = [list(part.batches) for part in (decoded.train, decoded.test)]
        return decoded.classes, [(i.tolist(), y.tolist()) for part in parts for i, y in part]

    def true(found: Any, truth: Any) -> bool:
        """Pages have checksums, but what lies around them has none: a data set is as it is read,
        and in the form of one."""
        labels = [label for _, labels in found[1] for label in labels]
        return len(found[0]) == 10 and all(0 <= label < 10 for label in labels)

    yield Kind("data set's Parquet", folder / "train-0.parquet", read, true)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, came = np.random.default_rng(given.seed), Counter[tuple[str, str]]()
    start, longest = time.process_time(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        every = kinds(Path(folder))
        for number in range(given.count):
            kind, before = every[number % len(every)], time.process_time()
            try:
                came[kind.name, strike(kind, draw)] += 1
            except Exception as error:
                came[kind.name, f"WRONG: {type(error).__name__}: {str(error)[:200]}"] += 1
            longest = max(longest, time.process_time() - before)
    for (name, outcome), count in sorted(came.items()):
        print(f"{count:6d}  {name}: {outcome}")
    print(f"{time.process_time() - start:.0f} CPU s, at most {longest:.2f} for one")
    if any(outcome.startswith("WRONG") for _, outcome in came):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
