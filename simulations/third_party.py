"""The trusted third party of a simulation: it trains the shared transformation network.

It owns images of its own, gives ``h`` to every participant and its classifiers to the provider, and
takes no further part. A bundle that was trained before takes its place.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clients.simulated import Population
from fedenc import documents
from fedenc.errors import ScenarioError
from fedenc.files import write_atomically
from fedenc.images import sheets
from fedenc.scenario import Scenario
from fedenc.scenario.sections import FOREIGN, Transformation
from fedenc.training import validation
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Progress
from fedenc.training.model_files import ModelFiles, pack_model
from fedenc.training.recipes import recipe
from fedenc.training.training_set import TrainingSet
from fedenc.transformation import bundle
from fedenc.transformation.cost import cost
from fedenc.transformation.measure import measure
from fedenc.transformation.pictures import compare
from fedenc.transformation.share import labels_digest, third_party
from fedenc.transformation.third_party import train
from server.app import Event, Given

OnEvent = Callable[[Event], None]

# What a bundle does not decide: where it is, what is done with it, and a third party's path
_CHOSEN_NOW = {"bundle", "digest", "answers", "feature_weights"}

PRESET = "ito2021-photos"  # what a third party trains by default
REPORT, PICTURES = "report.json", "pictures.png"
_SHOWN = 10  # images in the picture


def settle(scenario: Scenario, network: bundle.Transformation) -> Scenario:
    """The scenario with what the bundle that it names decides.

    Args:
        network: the participants' part of that bundle.

    Raises:
        ScenarioError: the scenario sets what the bundle has decided, to something else.
    """
    settings = scenario.transformation
    decided = network.info.get("data", {}).get("settings", {}) | {
        key: value
        for key, value in network.info.get("config", {}).items()
        if key in Transformation.model_fields and key not in _CHOSEN_NOW
    }
    chosen = settings.model_dump(include=settings.model_fields_set - _CHOSEN_NOW, mode="json")
    problems = [
        f"transformation.{key} = {value!r}, but the bundle {settings.bundle} was made with "
        f"{decided[key]!r}; leave it out, or leave out transformation.bundle to train another"
        for key, value in chosen.items()
        if key in decided and value != decided[key]
    ]
    if problems:
        raise ScenarioError(problems)
    known = settings.model_dump(mode="json") | decided | {"digest": network.digest}
    settled = scenario.model_copy(update={"transformation": Transformation.model_validate(known)})
    return with_bundle(settled, Path(str(settings.bundle)))


def training_config(scenario: Scenario, *, classifier: bool = False) -> TrainingConfig:
    """The third party's recipe, for its network or its classifiers.

    Raises:
        TrainingError: a recipe, a value or an augmentation that does not exist.
    """
    s, precision = scenario.transformation, scenario.training.precision
    return recipe(s.recipe, scale=s.scale, precision=precision, **s.changes(classifier=classifier))


def make(population: Population, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """Train the third party's bundle into ``folder``, going on where an earlier run stopped, and
    measure it on those of its own images that no weight was trained on (they chose the best epoch).

    Returns:
        What was measured: see :func:`fedenc.transformation.measure.measure`.

    Raises:
        FedencError: data, feature weights or training that fail.
    """
    scenario, dataset = population.scenario, population.dataset
    settings = scenario.transformation
    mine, _ = third_party(dataset.train.labels, settings.share(), scenario.seed)
    images = torch.from_numpy(dataset.train.images[mine])
    labels = torch.from_numpy(dataset.train.labels[mine])
    training = training_config(scenario)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def show(phase: str, p: Progress) -> None:
        on_event(Event(f"third party: {phase}", p.step, p.steps, str(p)))

    train(
        TrainingSet(images, labels),
        dataset.classes,
        config=settings.config(),
        training=training,
        classifier_training=training_config(scenario, classifier=True),
        seed=scenario.seed,
        device=device,
        folder=folder,
        data={
            "name": dataset.name,
            "fraction": settings.share(),
            "seed": scenario.seed,
            "images": len(mine),
            "of": len(dataset.train.labels),
            "labels": labels_digest(dataset.train.labels),
            "settings": _decided(scenario),
        },
        on_progress=show,
    )
    fitted, held_out = validation.split(labels, training.validation, scenario.seed)
    rows = fitted if held_out is None else held_out
    return _measured(folder, images[rows], labels[rows], device, held_out is not None)


def _measured(
    folder: Path, images: Tensor, labels: Tensor, device: torch.device, held_out: bool
) -> dict[str, Any]:
    """Measure a bundle, and write report and pictures beside it, for the third party alone."""
    made = bundle.load_bundle(folder)
    network = made.transformation
    if (known := _read(folder, network)) is not None:
        return known
    measured = measure(network, made.psi, images, labels, foreign=made.foreign, device=device)
    shown = images[:: max(len(images) // _SHOWN, 1)][:_SHOWN]
    sheets.save(compare(shown, [(_label(network), network.protect(shown))]), folder / PICTURES)
    measured |= {"digest": network.digest, "held_out": held_out, "cost": cost(network)}
    text = json.dumps(documents.sealed(measured), indent=2, allow_nan=False)
    write_atomically(folder / REPORT, text.encode() + b"\n")
    return measured


def _read(folder: Path, network: bundle.Transformation) -> dict[str, Any] | None:
    """The third party's report; None if there is none, or it is another network's."""
    try:
        known = documents.unsealed((folder / REPORT).read_bytes())
        return known if known["digest"] == network.digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _label(network: bundle.Transformation) -> str:
    return f"alpha {network.info['config']['alpha']:g}" if network.method == "unet" else "GAN-based"


def facts(scenario: Scenario) -> dict[str, Any]:
    """What a result says about the network: public facts, and what the third party measured."""
    folder = Path(str(scenario.transformation.bundle))
    network = bundle.load_transformation(folder)
    measured = _read(folder, network)
    return {"network": dict(network.info), "digest": network.digest, "measured": measured}


def images(scenario: Scenario) -> str:
    """What the classifiers that the third party gives to the provider were trained on."""
    return "protected" if scenario.transformation.method == "gan" else "plain"


def with_bundle(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with the bundle of that folder, also if the current folder changes."""
    settings = scenario.transformation.model_copy(update={"bundle": str(folder.resolve())})
    return scenario.model_copy(update={"transformation": settings})


def given(scenario: Scenario) -> Given | None:
    """The classifiers that the third party gives to the provider; None if that trains its own.

    Raises:
        TransformationError: they are missing.
    """
    if scenario.uploads:
        return None
    folder = Path(str(scenario.transformation.bundle)) / bundle.PROVIDER
    files, sha256 = _files(folder, bundle.PSI)
    asked = FOREIGN in scenario.conditions()
    return Given(files, sha256, _files(folder, bundle.FOREIGN)[0] if asked else None)


def _files(folder: Path, stem: str) -> tuple[ModelFiles, str]:
    """A classifier of the bundle, under the names that a run's own model has."""
    network, details = bundle.load_classifier(folder, stem=stem)
    return pack_model(network, details=details)


def _decided(scenario: Scenario) -> dict[str, Any]:
    """What a bundle records of the scenario it was made for."""
    settings = scenario.transformation.model_dump(mode="json", exclude=_CHOSEN_NOW)
    return settings | {"fraction": scenario.transformation.share()}
