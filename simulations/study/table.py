"""One tidy table of a study: a row for every run, model input, asker and kind of query."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa
from scipy.special import stdtrit

from fedenc.attacks.measures import share_interval
from simulations import result
from simulations.study.design import Design, flat
from simulations.study.runs import RUNS, why

Row = dict[str, Any]
MEASURED = (
    *("accuracy", "accuracy_low", "accuracy_high", "correct", "queries", "by_owner_mean"),
    *("by_owner_std", "agreement", "final_loss", "training_seconds", "images_per_second"),
    *("chance", "uploaded", "failed", "upload_bytes", "upload_seconds"),
    "participants_per_second",
    *(f"leakage_{m}" for m in ("ssim_uniform7", "ssim_gaussian11", "edges", "linked")),
    "leakage_key_recovered",
)
# What every row of a finished run has, besides the study's own columns and the scenario's keys.
COLUMNS = (
    *("run", "seed", "status", "reason", "input", "asker", "condition", "precision"),
    *("model_sha256", *MEASURED),
)


def rows(design: Design, folder: Path) -> list[Row]:
    """Every row of the table; runs that are not finished have one row without figures."""
    found = list[Row]()
    for cell in design.cells:
        own = folder / RUNS / cell.id
        base: Row = dict(cell.labels) | {"seed": cell.scenario.seed, "run": cell.id}
        if not (own / result.RESULT).exists():
            reason = why(own)
            status = "failed" if reason else "not run"
            found.append(base | {"status": status, "reason": reason or None})
            continue
        facts = result.read(own)
        keys = {k: v for k, v in flat(facts["scenario"]).items() if k != "encryption.seed"}
        found += [keys | base | row for row in _of_run(facts)]
    return found


def _of_run(facts: Mapping[str, Any]) -> Iterator[Row]:
    common: Row = {
        "status": "done",
        "chance": facts["chance"],
        "uploaded": facts["clients"]["uploaded"],
        "failed": len(facts["clients"]["failed"]),
        "upload_bytes": facts["upload"]["bytes"],
        "upload_seconds": facts["upload"]["seconds"],
        "participants_per_second": facts["upload"]["clients_per_second"],
        **_leakage(facts.get("leakage")),
    }
    models = {facts["model"]["input"]: facts} | facts.get("compared", {})
    for stage, model in models.items():
        training = model["training"] or {}
        own: Row = {
            "input": stage,
            "model_sha256": model["model"]["sha256"],
            "agreement": model["agreement"]["plain_vs_encrypted"],
            "final_loss": training.get("final_loss"),
            "training_seconds": training.get("seconds"),
            "images_per_second": training.get("images_per_second"),
            "precision": training.get("precision"),
        }
        if not model["accuracy"]:
            yield common | own  # nobody's queries were answered
        for asker in ("member", "outsider"):
            accuracies = (
                model["accuracy" if asker == "member" else "outsiders"]
                if (asker == "member" or "outsiders" in model)
                else {}
            )
            for condition, found in accuracies.items():
                if condition == "agreement":
                    continue
                correct = round(found["overall"] * found["queries"])
                interval = share_interval(correct, found["queries"])
                yield (
                    common
                    | own
                    | {
                        "asker": asker,
                        "condition": condition,
                        "accuracy": found["overall"],
                        "accuracy_low": interval.low,
                        "accuracy_high": interval.high,
                        "correct": correct,
                        "queries": found["queries"],
                        "by_owner_mean": found["per_client_mean"],
                        "by_owner_std": found["per_client_std"],
                    }
                )


def _leakage(found: Mapping[str, Any] | None) -> Row:
    """The highest of each measure over the quick attacks."""
    measures = ("ssim_uniform7", "ssim_gaussian11", "edges", "linked", "key_recovered")
    rows = (found or {}).get("rows", [])
    top = {m: [row[m] for row in rows if row.get(m) is not None] for m in measures}
    return {f"leakage_{m}": max(values) if values else None for m, values in top.items()}


def arrow(found: Sequence[Row]) -> pa.Table:
    """As an Arrow table; values of mixed types become text."""
    names = list(dict.fromkeys(name for row in found for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in found]
        kinds = {type(v) for v in values if v is not None}
        if kinds == {int, float}:
            values = [None if v is None else float(v) for v in values]
        elif len(kinds) > 1 or kinds & {list, dict, tuple}:
            values = [None if v is None else str(v) for v in values]
        columns[name] = pa.array(values)
    return pa.table(columns)


def over_seeds(values: Iterable[float]) -> tuple[float, float | None]:
    """The mean, and half the width of Student's 95 % interval (None for a single value)."""
    found = list(values)
    if len(found) < 2:
        return found[0], None
    quantile = float(stdtrit(len(found) - 1, 0.975))
    return fmean(found), quantile * stdev(found) / sqrt(len(found))


def summary(design: Design, found: Sequence[Row], measure: str = "accuracy") -> list[Row]:
    """Means over seeds of one measure, in the order of the runs."""
    by = [*design.columns, "input", "asker", "condition"]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in found:
        if row["status"] == "done" and row.get(measure) is not None:
            groups.setdefault(tuple(str(row.get(name)) for name in by), []).append(row)
    lines = []
    for group in groups.values():
        mean, half = over_seeds(row[measure] for row in group)
        line = {name: group[0].get(name) for name in by}
        lines.append(line | {measure: mean, "half": half, "seeds": len(group)})
    return lines
