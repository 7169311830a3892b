"""The third party's side of a simulation: what a bundle decides, and what does not fit together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedenc import models
from fedenc.data import load
from fedenc.errors import ScenarioError, TransformationError
from fedenc.scenario import Scenario, parse
from fedenc.training.model_files import save_model
from fedenc.transformation.bundle import PROVIDER, PSI, build, save_transformation
from fedenc.transformation.share import labels_digest
from simulations import third_party
from simulations.experiment import prepare
from simulations.run import simulate

MADE_WITH = {
    "method": "unet",
    "alpha": 0.2,
    "widths": [4, 8],
    "features": "classifier",
    "classifier": "fast",
    "foreign": False,
    "fraction": 0.25,
}


def made(folder: Path, side: int = 32, classes: tuple[str, ...] | None = None) -> str:
    """A bundle for the bundled photographs that nobody has trained; its network's digest."""
    names = load("photos").classes if classes is None else classes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("unet", {"widths": [4, 8]})
    labels = labels_digest(load("photos").train.labels)
    facts = {"name": "photos", "fraction": 0.25, "seed": 7, "labels": labels}
    data = facts | {"settings": MADE_WITH}
    saved = save_transformation(
        folder,
        network,
        method="unet",
        architecture={"widths": [4, 8]},
        size=(side, side),
        classes=names,
        info={"data": data},
    )
    psi = models.build("fast", channels=3, classes=len(names), size=(side, side))
    details = {"classes": list(names), "transformation": saved.digest}
    save_model(folder / PROVIDER, psi, details=details, stem=PSI)
    return saved.digest


def scenario(folder: Path | None, **settings: Any) -> Scenario:
    where = {} if folder is None else {"bundle": str(folder)}
    encryption = {"cipher": "transformation", "seed": 1}
    clients = {"count": 4, "images": 20}
    return parse({"encryption": encryption, "clients": clients, "transformation": where | settings})


def test_a_bundle_decides_what_it_was_made_with(tmp_path: Path) -> None:
    digest = made(tmp_path)
    experiment = prepare(scenario(tmp_path))
    settled = experiment.scenario
    assert settled.transformation.digest == digest
    assert settled.transformation.alpha == 0.2
    assert settled.transformation.widths == (4, 8)
    assert settled.transformation.share() == 0.25
    assert settled.conditions() == ("plain", "encrypted")  # there is no foreign classifier
    assert prepare(settled).scenario == settled
    told = experiment.provider_view
    assert told.cipher == "transformation"
    assert told.cipher_params == {"method": "unet", "digest": digest}
    assert str(tmp_path) not in told.model_dump_json()


def test_what_a_bundle_decided_cannot_be_set_again(tmp_path: Path) -> None:
    made(tmp_path)
    prepare(scenario(tmp_path, alpha=0.2, answers="central"))
    with pytest.raises(ScenarioError) as error:
        prepare(scenario(tmp_path, alpha=0.3, classifier="resnet20"))
    assert len(error.value.problems) == 2
    assert "alpha = 0.3, but the bundle" in str(error.value)


def test_bundles_for_other_images(tmp_path: Path) -> None:
    made(tmp_path / "small", side=16)
    with pytest.raises(TransformationError, match="trained on 3×16×16"):
        prepare(scenario(tmp_path / "small"))
    made(tmp_path / "animals", classes=("cat", "dog"))
    with pytest.raises(TransformationError, match=r"trained for 2 classes \(cat, dog\)"):
        prepare(scenario(tmp_path / "animals"))


def test_what_the_provider_is_given(tmp_path: Path) -> None:
    made(tmp_path)
    experiment = prepare(scenario(tmp_path))
    given = experiment.given
    assert given is not None
    assert set(given.files) == {"model.safetensors", "config.json"}
    assert given.foreign is None
    assert prepare(scenario(tmp_path, answers="central")).given is None
    (tmp_path / PROVIDER / "psi.safetensors").unlink()
    with pytest.raises(TransformationError, match=r"psi\.safetensors"):
        third_party.given(experiment.scenario)


def test_a_third_party_that_cannot_train_is_told_at_once() -> None:
    with pytest.raises(ScenarioError) as error:
        prepare(scenario(None, classifier="resnet1000", recipe="none such"))
    assert "resnet1000" in str(error.value)


def test_baselines_need_uploads(tmp_path: Path) -> None:
    made(tmp_path / "bundle")
    with pytest.raises(ScenarioError, match="upload nothing"):
        simulate(prepare(scenario(tmp_path / "bundle")), tmp_path / "run", baselines=True)
