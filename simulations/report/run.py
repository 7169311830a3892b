"""What the report of one run shows."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fedenc.training.model_files import WEIGHTS, load_model
from simulations import leakage, result
from simulations.report import charts, inlined, leaked

_CELL, _COLUMNS = 36, 16  # of a sheet of filters: pixels a side with its gap, and filters in a row


def content(folder: Path) -> dict[str, Any]:
    """Everything that the page of a run needs, from the files in its folder."""
    facts = result.read(folder)
    models = {facts["model"]["input"]: facts} | facts.get("compared", {})
    leaks = facts.get("leakage")
    observer = folder / leakage.PICTURE
    return {
        "facts": facts,
        "models": models,
        "accuracy": charts.bars(
            list(_accuracies(models)), mark=facts["chance"], mark_text="guessing"
        ),
        "owners": charts.strip(list(_by_owner(folder, facts, models))),
        "curves": charts.lines(
            [
                (stage, [(epoch, loss) for epoch, loss, _ in model["training"]["curve"]])
                for stage, model in models.items()
                if model["training"]
            ],
            x="epoch",
            y="loss",
        ),
        "observer": inlined(observer.read_bytes()) if observer.exists() else None,
        "filters": {
            stage: inlined(picture)
            for stage in models
            if (picture := filters(folder if stage == facts["model"]["input"] else folder / stage))
        },
        "time": charts.bars(_shares(facts["phases"])),
        "leaks": leaks,
        **leaked(leaks["rows"] if leaks else []),
    }


def _accuracies(models: Mapping[str, Any]) -> Iterable[charts.Bar]:
    for stage, model in models.items():
        prefix = f"{stage}, " if len(models) > 1 else ""
        for who, accuracies in (("", model["accuracy"]), ("outsiders, ", model.get("outsiders"))):
            for condition, found in (accuracies or {}).items():
                if condition == "agreement":
                    continue
                share = result.interval(found)
                yield f"{prefix}{who}{condition}", share.mean, share.low, share.high


def _by_owner(
    folder: Path, facts: Mapping[str, Any], models: Mapping[str, Any]
) -> Iterable[tuple[str, list[float]]]:
    """Every participant's own accuracy, by model input and condition."""
    table = result.participants(folder, facts)
    for stage in models:
        suffix = "" if stage == facts["model"]["input"] else f"_{stage}"
        prefix = f"{stage}, " if len(models) > 1 else ""
        for condition in facts["accuracy"]:
            asked = [
                (row[f"correct_{condition}{suffix}"], row[f"queries_{condition}{suffix}"])
                for row in table
            ]
            shares = [right / total for right, total in asked if right is not None and total]
            yield f"{prefix}{condition}", shares


def _shares(phases: Mapping[str, float]) -> list[charts.Bar]:
    total = sum(phases.values()) or 1.0
    return [
        (f"{phase}, {seconds:.1f} s", seconds / total, seconds / total, seconds / total)
        for phase, seconds in phases.items()
    ]


def filters(folder: Path) -> bytes | None:
    """The weights of the first convolution that sees more than a pixel, as colour pictures; as in
    Fig. 9 of Sirichotedumrong, Kinoshita & Kiya (IEEE Access 2019)."""
    if not (folder / WEIGHTS).exists():
        return None
    weights = [tensor.numpy() for tensor in load_model(folder)[0].state_dict().values()]
    first = next((w for w in weights if w.ndim == 4 and w.shape[1] in (1, 3)), None)
    if first is None or first.shape[-1] < 2:
        return None
    low, high = (bound((1, 2, 3), keepdims=True) for bound in (first.min, first.max))
    scaled = (255 * (first - low) / np.maximum(high - low, 1e-9)).astype(np.uint8)
    rows = -(-len(scaled) // _COLUMNS)
    sheet = Image.new("RGB", (_CELL * min(_COLUMNS, len(scaled)), _CELL * rows), "white")
    for number, one in enumerate(scaled):
        pixels = np.broadcast_to(one, (3, *one.shape[1:])).transpose(1, 2, 0)
        side = (_CELL - 4, _CELL - 4)
        picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(
            side, Image.Resampling.NEAREST
        )
        sheet.paste(picture, (_CELL * (number % _COLUMNS), _CELL * (number // _COLUMNS)))
    content = io.BytesIO()
    sheet.save(content, "PNG")
    return content.getvalue()
