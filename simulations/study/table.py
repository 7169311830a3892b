"""One tidy table of a study: a row for every run, model input, asker and kind of query."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import pyarrow as pa
from scipy.special import stdtrit

from fedenc.scenario.sections import ENCRYPTED, PLAIN, SAME_KEY
from simulations import attack, result
from simulations.study.design import Cell, Design, flat
from simulations.study.runs import ATTACKS, RUNS, why

Row = dict[str, Any]
MEASURED = (
    *("accuracy", "accuracy_low", "accuracy_high", "correct", "queries", "images"),
    *(
        "by_owner_mean",
        "by_owner_std",
        "agreement",
        "final_loss",
        "training_seconds",
        "images_per_second",
    ),
    *("chance", "uploaded", "failed", "upload_bytes", "upload_seconds"),
    "participants_per_second",
    *(f"leakage_{m}" for m in ("ssim_uniform7", "ssim_gaussian11", "edges", "linked")),
    "leakage_key_recovered",
    *("visible_ssim_uniform7", "visible_ssim_gaussian11", "visible_psnr"),
    *("unrounded_accuracy", "network_bytes", "network_mflop", "network_ms"),
)
# What every row of a finished run has, besides the study's own columns and the scenario's keys.
COLUMNS = (
    *("run", "seed", "status", "reason", "input", "asker", "condition", "as_uploaded"),
    *("precision", "model_sha256", "collapsed", *MEASURED),
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
        found += [keys | base | row for row in _of_run(facts, _as_uploaded(cell))]
    return found


def _as_uploaded(cell: Cell) -> str:
    """The kind of query that is protected as the uploads are: what papers ask of a model."""
    encryption = cell.scenario.encryption
    if encryption.cipher == "none":
        return PLAIN
    return SAME_KEY if encryption.keys == "same" and not encryption.keyless else ENCRYPTED


def attack_rows(design: Design, folder: Path) -> list[Row]:
    """What attacks on the runs found: a row for every run and attack."""
    found = list[Row]()
    for cell in design.cells:
        own = folder / RUNS / cell.id / ATTACKS
        base: Row = dict(cell.labels) | {"seed": cell.scenario.seed, "run": cell.id}
        if (own / attack.FACTS).exists():
            found += [base | _measured(row) for row in attack.read(own)["rows"]]
    return found


def _measured(row: Row) -> Row:
    """An attack's row without what is nested in it; its controls stay, by name and measure."""
    flat_ = {k: v for k, v in row.items() if not isinstance(v, dict | list)}
    controls = {
        f"{name} {measure}": value
        for name, values in row.get("control", {}).items()
        for measure, value in values.items()
        if isinstance(value, int | float)
    }
    return flat_ | {"knowledge": ", ".join(row["knowledge"])} | controls


def _of_run(facts: Mapping[str, Any], own_kind: str) -> Iterator[Row]:
    """Args: own_kind: of query, as the uploads are protected."""
    common: Row = {
        "status": "done",
        "chance": facts["chance"],
        "uploaded": facts["clients"]["uploaded"],
        "failed": len(facts["clients"]["failed"]),
        "upload_bytes": facts["upload"]["bytes"],
        "upload_seconds": facts["upload"]["seconds"],
        "participants_per_second": facts["upload"]["clients_per_second"],
        **_leakage(facts.get("leakage")),
        **_visible(facts),
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
            "precision": model["model"].get("precision", training.get("precision")),
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
                interval = result.interval(found)
                yield (
                    common
                    | own
                    | {
                        "asker": asker,
                        "condition": condition,
                        "as_uploaded": condition == own_kind,
                        "accuracy": found["overall"],
                        "accuracy_low": interval.low,
                        "accuracy_high": interval.high,
                        "correct": round(found["overall"] * found["queries"]),
                        "queries": found["queries"],
                        "images": found.get("images"),
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


def _visible(facts: Mapping[str, Any]) -> Row:
    """How alike protected and plain images are, and what a transformation network costs."""
    rows = (facts.get("leakage") or {}).get("rows", [])
    controls = (row.get("control", {}).get("ciphertext") for row in rows)
    uploads: Mapping[str, Any] = next(filter(None, controls), {})
    network = (facts.get("transformation") or {}).get("measured") or {}
    cost, names = network.get("cost", {}), ("ssim_uniform7", "ssim_gaussian11", "psnr")
    return {f"visible_{name}": network.get(name, uploads.get(name)) for name in names} | {
        "unrounded_accuracy": network.get("unrounded_accuracy"),
        "collapsed": network.get("collapse", {}).get("collapsed"),
        "network_bytes": cost.get("bytes"),
        "network_mflop": cost.get("mflop_per_image"),
        "network_ms": cost.get("ms_per_image"),
    }


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


class Spread(NamedTuple):
    """Values of different seeds: their mean, their sample deviation, and half the width of
    Student's 95 % interval of the mean; None in place of the last two for a single value."""

    mean: float
    deviation: float | None = None
    half: float | None = None


def over_seeds(values: Iterable[float]) -> Spread:
    """The mean of one value or more, and how they spread."""
    found = list(values)
    if len(found) < 2:
        return Spread(found[0])
    quantile, deviation = float(stdtrit(len(found) - 1, 0.975)), stdev(found)
    return Spread(fmean(found), deviation, quantile * deviation / sqrt(len(found)))


def summary(design: Design, found: Sequence[Row], measure: str = "accuracy") -> list[Row]:
    """Means over seeds of one measure, in the order of the runs."""
    by = [*design.columns, "input", "asker", "condition"]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in found:
        if row["status"] == "done" and row.get(measure) is not None:
            groups.setdefault(tuple(str(row.get(name)) for name in by), []).append(row)
    lines = []
    for group in groups.values():
        mean, deviation, half = over_seeds(row[measure] for row in group)
        line = {name: group[0].get(name) for name in by} | {measure: mean, "deviation": deviation}
        lines.append(line | {"half": half, "seeds": len(group)})
    return lines
