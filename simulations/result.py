"""What a run writes down: ``result.json``, and one row per participant. Reports use only these."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import bdtr

from clients.simulated import Population
from fedenc import documents, provenance
from fedenc.attacks.measures import Interval, share_interval
from fedenc.errors import ScenarioError
from fedenc.files import write_atomically
from fedenc.scenario import Scenario
from fedenc.scenario.sections import ENCRYPTED, PLAIN
from fedenc.shard import UNPROTECTED
from fedenc.training.model_files import CONFIG
from server.app import Compared, Outcome
from server.phases.score import Tally
from server.trainer import Trained
from simulations import third_party
from simulations.experiment import Experiment

SCHEMA = 2  # of result.json; see docs/results.md. 1 had no digests
RESULT, CLIENTS, LOG = "result.json", "clients.parquet", "log.txt"


def build(experiment: Experiment, outcome: Outcome) -> dict[str, Any]:
    """The content of ``result.json``, as docs/results.md describes it.

    Accuracies are fractions in [0, 1]: ``overall`` over all queries, ``per_client_mean`` the mean
    of the participants' own accuracies. Times are in seconds.
    """
    scenario, seen = experiment.scenario, experiment.provider_view
    protection = experiment.population.protection(0)
    images = sum(rows for _, rows, _ in outcome.uploads.values())
    shared = third_party.facts(scenario) if scenario.encryption.keyless else None
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "name": experiment.name,
        "warnings": list(experiment.warnings),
        "scenario": scenario.dump(),
        "scenario_hash": scenario.hash(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
        "protection": {
            "name": protection.name,
            "params": protection.params(),
            "text": experiment.in_words() + _measured(shared),
        },
        "keys": protection.policy
        and {
            "policy": protection.policy,
            "simulated": True,
            "views": scenario.encryption.views,
        },
        "clients": {
            "requested": scenario.clients.count,
            "uploaded": len(outcome.uploads),
            "plain": sum(cipher == UNPROTECTED[0] for cipher, _, _ in outcome.uploads.values()),
            "failed": [vars(f) for f in outcome.failed],
        },
        "upload": {
            "images": images,
            "bytes": sum(size for _, _, size in outcome.uploads.values()),
            "seconds": outcome.upload_seconds,
            "clients_per_second": (len(outcome.uploads) - outcome.resumed) / outcome.upload_seconds
            if outcome.upload_seconds
            else None,
            "resumed": outcome.resumed,
        },
        "inference": {"paired": scenario.paired},
        "chance": 1 / len(seen.classes),
        **_asked(experiment.population, scenario.model.input, outcome),
    }
    if shared is not None:
        result["transformation"] = shared
    if outcome.compared:
        result["compared"] = {
            stage: _asked(experiment.population, stage, compared)
            for stage, compared in outcome.compared.items()
        }
    return result


def _asked(people: Population, stage: str, asked: Outcome | Compared) -> dict[str, Any]:
    """What a model is, and what came of asking it."""
    scenario = people.scenario
    model, tallies = asked.model, asked.answered.tallies
    count = scenario.clients.count
    members = {i: t for i, t in tallies.items() if i < count}
    outsiders = {i: t for i, t in tallies.items() if i >= count}
    own = isinstance(model, Trained)
    found: dict[str, Any] = {
        "training": _facts(model) if isinstance(model, Trained) else None,
        "accuracy": _accuracies(members, people),
        "agreement": _agreement(members.values()),
        "model": {
            "name": scenario.model.name if own else scenario.transformation.classifier,
            "input": stage if own else "raw",
            "sha256": model.sha256,
            "from": "provider" if own else "third party",
            "precision": json.loads(model.files[CONFIG])["details"].get("precision"),
            "trained_on": "uploads" if own else third_party.images(scenario),
        },
    }
    if outsiders:
        agreement = _agreement(outsiders.values())
        found["outsiders"] = _accuracies(outsiders, people) | {"agreement": agreement}
    return found


def _facts(model: Trained) -> dict[str, Any]:
    return {name: value for name, value in vars(model).items() if name not in ("files", "sha256")}


def _measured(shared: Mapping[str, Any] | None) -> str:
    """What the third party measured of a network, in words, if it did."""
    measured = (shared or {}).get("measured")
    if measured is None:
        return ""
    collapsed = "; COLLAPSED, see result.json" * measured["collapse"]["collapsed"]
    return f", SSIM to the plain image {measured['ssim_uniform7']:.2f}{collapsed}"


def write(
    folder: Path, experiment: Experiment, outcome: Outcome, result: Mapping[str, Any]
) -> None:
    """Write model and participants first and ``result.json`` last: if it is there, all is there."""
    scenario = experiment.scenario
    models = {folder: outcome.model.files}
    models |= {folder / stage: other.model.files for stage, other in outcome.compared.items()}
    for place, files in models.items():
        for name, content in files.items():
            write_atomically(place / name, content)
    table = pa.Table.from_pylist(list(_rows(scenario, outcome)), schema=_schema(scenario))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_participants(folder, sink.getvalue().to_pybytes(), result)


def write_participants(folder: Path, content: bytes, result: Mapping[str, Any]) -> None:
    """Write ``clients.parquet``, and ``result.json`` with its digest."""
    write_atomically(folder / CLIENTS, content)
    write_facts(folder, {**result, "clients_sha256": hashlib.sha256(content).hexdigest()})


def participants(folder: Path, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of ``clients.parquet``.

    Raises:
        ScenarioError: it is damaged, or not the one that ``result.json`` was written with.
    """
    path = folder / CLIENTS
    try:
        content = path.read_bytes()
        expected = facts.get("clients_sha256")
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise ValueError(f"it does not have the digest that {RESULT} names")
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(content)).to_pylist()
        return rows
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ScenarioError(f"{path} is damaged ({error}); restore it from a copy") from None


def read(folder: Path) -> dict[str, Any]:
    """The content of a ``result.json`` of this version.

    Raises:
        ScenarioError: it is damaged, or of another version.
    """
    path = folder / RESULT
    try:
        facts = documents.unsealed(path.read_bytes(), since="schema")
        found = facts.get("schema")
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path} is damaged ({error}); start in another folder") from None
    if found not in (1, SCHEMA):
        raise ScenarioError(
            f"{path} has schema {found!r}, expected {SCHEMA}; use the fedenc that wrote it, or "
            "start in another folder"
        )
    return facts


def write_facts(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json`` alone."""
    text = json.dumps(documents.sealed(result), indent=2, allow_nan=False)
    # It names the seed of the simulated keys.
    write_atomically(folder / RESULT, text.encode() + b"\n", mode=0o600)


def _accuracies(tallies: Mapping[int, Tally], people: Population) -> dict[str, Any]:
    accuracies: dict[str, Any] = {}
    for condition in people.scenario.conditions():
        counted = {i: t for i, t in tallies.items() if t.total.get(condition)}
        if not counted:
            continue
        mine = counted.values()
        each = [t.correct[condition] / t.total[condition] for t in mine]
        queries = sum(t.total[condition] for t in mine)
        accuracies[condition] = {
            "overall": sum(t.correct[condition] for t in mine) / queries,
            "per_client_mean": fmean(each),
            "per_client_std": pstdev(each),
            "queries": queries,
            "images": people.distinct(condition, counted),
        }
    return accuracies


def interval(found: Mapping[str, Any]) -> Interval:
    """An accuracy of a result, and its 95 % confidence interval over test images: a second question
    about the same image tells nothing new."""
    images = found.get("images", found["queries"])
    return share_interval(round(found["overall"] * images), images)


def _agreement(tallies: Iterable[Tally]) -> dict[str, float | int | None]:
    """Of the two forms of every image that was asked plain and encrypted. The p-value is that of
    McNemar's exact test: how likely the two forms' right answers differ so much by chance."""
    counted = [t for t in tallies if t.pairs]
    pairs = sum(t.pairs or 0 for t in counted)
    agree = sum(t.agree or 0 for t in counted)
    both = sum(t.both or 0 for t in counted)
    plain, encrypted = (sum(t.correct[c] for t in counted) - both for c in (PLAIN, ENCRYPTED))
    return {
        "plain_vs_encrypted": agree / pairs if pairs else None,
        "pairs": pairs,
        "right_only_plain": plain,
        "right_only_encrypted": encrypted,
        "p_value": mcnemar(plain, encrypted) if pairs else None,
    }


def mcnemar(first: int, second: int) -> float:
    """McNemar's exact test (Psychometrika 1947) of two kinds of answers to the same questions.

    Args:
        first: questions that only the first kind answers right.
        second: questions that only the second does.

    Returns:
        The two-sided p-value, 0 to 1.
    """
    count = first + second
    return min(1.0, 2 * float(bdtr(min(first, second), count, 0.5))) if count else 1.0


def _schema(scenario: Scenario) -> pa.Schema:
    fields = [
        ("id", pa.int64()),
        ("role", pa.string()),
        ("cipher", pa.string()),
        ("uploaded", pa.bool_()),
        ("images", pa.int64()),
        ("bytes", pa.int64()),
        ("failed_phase", pa.string()),
        ("reason", pa.string()),
    ]
    for condition in scenario.conditions():
        for model in scenario.model.variants():
            name = _column(scenario, condition, model.input)
            fields += [(f"correct_{name}", pa.int64()), (f"queries_{name}", pa.int64())]
    return pa.schema([*fields, ("agree", pa.int64()), ("pairs", pa.int64()), ("both", pa.int64())])


def _rows(scenario: Scenario, outcome: Outcome) -> Iterable[dict[str, Any]]:
    failures = {f.id: f for f in outcome.failed}
    asked = {scenario.model.input: outcome.answered}
    asked |= {stage: compared.answered for stage, compared in outcome.compared.items()}
    for i in range(scenario.clients.total):
        cipher, images, size = outcome.uploads.get(i, (None, 0, 0))
        failure, tally = failures.get(i), outcome.answered.tallies.get(i)
        row: dict[str, Any] = {
            "id": i,
            "role": "member" if i < scenario.clients.count else "outsider",
            "cipher": cipher,
            "uploaded": i in outcome.uploads,
            "images": images,
            "bytes": size,
            "failed_phase": failure.phase if failure else None,
            "reason": failure.reason if failure else None,
            "agree": tally.agree if tally else None,
            "pairs": tally.pairs if tally else None,
            "both": tally.both if tally else None,
        }
        for stage, answered in asked.items():
            counted = answered.tallies.get(i)
            for condition in scenario.conditions():
                name = _column(scenario, condition, stage)
                row[f"correct_{name}"] = counted.correct.get(condition) if counted else None
                row[f"queries_{name}"] = counted.total.get(condition) if counted else None
        yield row


def _column(scenario: Scenario, condition: str, stage: str) -> str:
    """A condition's part in the names of columns; the scenario's own input stage is not named."""
    return condition if stage == scenario.model.input else f"{condition}_{stage}"
