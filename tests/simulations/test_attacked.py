"""What is attacked is what was uploaded, and the truth about it is true."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedenc.attacks.target import ABSENT, ELSEWHERE, Target
from fedenc.errors import AttackError, DataError, FedencError
from fedenc.scenario import load
from server.pool import PoolWriter
from simulations import attacked, central, result, run, third_party
from simulations.experiment import Experiment, OnEvent, prepare
from simulations.run_folder import PROVIDER

SETS = [
    "clients.count=4",
    "clients.images=20",
    "encryption.seed=3",
    "model.name=tiny",
    "training.epochs=1",
    "inference.images=4",
    "server.threads=1",
]


def of_method(*sets: str, images: int = 30) -> Target:
    experiment = prepare(load(None, [*SETS, *sets]))
    return attacked.of_method(experiment.population, attacked.Sample(images))


def check(target: Target) -> None:
    """Keys encrypt what was plain to what was uploaded, and candidates are where they should be."""
    cipher = target.method.cipher
    assert cipher is not None
    for rows, key in zip(target.observe().groups(), target.key, strict=True):
        assert torch.equal(cipher.apply(target.plain[rows], key), target.uploads.images[rows])
    assert target.candidates is not None
    assert target.shown is not None
    assert target.originals is not None
    there = (target.shown >= 0).nonzero().squeeze(1)
    assert torch.equal(target.originals[target.shown[there]], target.candidates[there])
    assert target.public is not None
    own = {image.numpy().tobytes() for image in target.originals}
    foils = target.candidates[target.shown == ABSENT]
    others = [image.numpy().tobytes() for image in (*target.public.images, *foils)]
    assert not own & set(others)
    assert len(set(others)) == len(others), "the attacker's own images are no candidates"


@pytest.mark.parametrize(
    "sets",
    [
        ["encryption.keys=same"],
        ["encryption.keys=client", "encryption.cipher=etc"],
        ["encryption.views=2", "augmentation.domain=plain"],
        ["augmentation.domain=plain", "augmentation.train=shift-flip-all"],
        ["clients.plain_fraction=0.5"],
        ["clients.partition=dirichlet", "clients.alpha=0.3"],
    ],
    ids=str,
)
def test_the_truth_about_uploads_is_true(sets: list[str]) -> None:
    target = of_method(*sets)
    assert len(target.uploads) == 30
    assert len(target.protections) >= 2, "of several owners"
    check(target)
    again = of_method(*sets)
    assert torch.equal(again.uploads.images, target.uploads.images)


def test_plain_uploads_are_not_attacked() -> None:
    with pytest.raises(AttackError, match="nobody uploaded protected images"):
        of_method("clients.plain_fraction=1")
    with pytest.raises(AttackError, match="nobody uploaded protected images"):
        of_method("encryption.cipher=none")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacked") / "run"
    experiment = prepare(load(None, SETS))

    def perform(experiment: Experiment, on_event: OnEvent) -> Any:
        return central.perform(experiment, folder / PROVIDER, on_event)

    run.record(experiment, folder, perform)
    pool = PoolWriter(folder / PROVIDER / "pool")
    pool.append([experiment.population.participant(i).upload() for i in range(4)])
    pool.close()
    return folder


def test_a_run_is_attacked_with_its_model(finished: Path) -> None:
    target = attacked.of_run(finished, attacked.Sample(30))
    check(target)
    assert target.model is not None
    assert target.trained_on is not None
    assert target.shown is not None
    assert int(target.trained_on.sum()) == 80
    assert torch.equal(target.trained_on, target.shown != ABSENT)
    assert int((target.shown == ELSEWHERE).sum()) == 80 - 30


@pytest.mark.parametrize(
    ("remove", "kind", "message"),
    [
        ("result.json", AttackError, "holds no result.json; expected the folder of a finished run"),
        ("provider/pool/pool.bin", DataError, "pool.bin does not exist"),
        ("provider/pool", DataError, "does not exist; expected the pool of a run"),
    ],
)
def test_what_is_missing_is_said(
    finished: Path, tmp_path: Path, remove: str, kind: type[FedencError], message: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    path = folder / remove
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(kind, match=message):
        attacked.of_run(folder, attacked.Sample())


def test_a_damaged_pool_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    with (folder / PROVIDER / "pool" / "pool.bin").open("r+b") as file:
        file.seek(5)
        file.write(b"damage")
    with pytest.raises(DataError, match="damaged: 0 of 4 uploads are whole"):
        attacked.of_run(folder, attacked.Sample())


def test_what_owners_would_not_upload_any_more_is_not_scored(
    finished: Path, tmp_path: Path
) -> None:
    """As if the data set had changed since the run: other keys give another nonce, too."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    facts = result.read(folder)
    assert facts["scenario"]["encryption"]["seed"] == 3
    facts["scenario"]["encryption"]["seed"] = 4
    result.write_facts(folder, facts)
    with pytest.raises(AttackError, match="would upload now is not what it uploaded"):
        attacked.of_run(folder, attacked.Sample())


@pytest.mark.parametrize("damage", ['{"schema": 1}', '{"schema": 1, "scenario": {"sed": 1}}'])
def test_a_damaged_result_is_said(finished: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    (folder / "result.json").write_text(damage)
    with pytest.raises(AttackError, match=r"result.json is damaged"):
        attacked.of_run(folder, attacked.Sample())


def test_who_did_not_upload_is_no_member() -> None:
    experiment = prepare(load(None, SETS))
    population = experiment.population
    shards = [population.participant(i).upload() for i in (0, 2)]
    target = attacked.build(population, shards, [0, 2], attacked.Sample(30))
    theirs = {x.tobytes() for i in (0, 2) for x in population.participant(i).train.images}
    assert all(image.numpy().tobytes() in theirs for image in target.plain)


def test_a_third_partys_images_are_nobodys_public_ones(tmp_path: Path) -> None:
    sets = ["encryption.cipher=transformation", "transformation.answers=central"]
    settings = [*SETS, *sets, "transformation.fraction=0.5", "transformation.epochs=1"]
    small = ["transformation.widths=[8,16]", "transformation.classifier=tiny"]
    more = ["transformation.features=classifier", "transformation.classifier_epochs=1"]
    scenario = load(None, [*settings, *small, *more, "transformation.recipe=ito-short"])
    experiment = prepare(scenario).with_bundle(tmp_path / "bundle")
    third_party.make(experiment.population, tmp_path / "bundle", lambda event: None)
    population = experiment.population
    target = attacked.of_method(population, attacked.Sample(30))
    everything = population.dataset.train.images
    theirs = np.setdiff1d(np.arange(len(everything)), population.available)
    secret = {everything[i].tobytes() for i in theirs}
    assert target.public is not None
    assert target.candidates is not None
    seen = [*target.public.images, *target.candidates]
    assert secret
    assert not any(image.numpy().tobytes() in secret for image in seen)
    assert torch.equal(target.network.protect(target.plain), target.uploads.images)  # type: ignore[union-attr]
