"""Baselines, which show what encryption costs: the same data and recipe, trained on plain images.

The driver, which simulates everybody, trains them, never the provider. What participants or server
augment is augmented in every epoch here, as is usual in training on plain images.
"""

from collections.abc import Callable
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch

from clients.participant import Labelled
from clients.simulated import Population
from fedenc.data import Dataset
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training.loop import Run, fit
from fedenc.training.predict import predict
from fedenc.training.training_set import TrainingSet
from server.app import Event
from server.recipe import network, server_method, training_config

OnEvent = Callable[[Event], None]


def measure(population: Population, on_event: OnEvent) -> dict[str, Any]:
    """Accuracies on plain test images of all participants' held-out sets.

    Returns:
        ``central_plain``: one model on everybody's plain images; ``alone``: one model per owner, on
        its own plain images only: mean and deviation over ``owners`` (None if there are none);
        ``too_small``: the number of owners with too few images to train on; ``precision`` of all
        trainings, fp32 or bf16.
    """
    scenario = population.scenario
    owners = [population.participant(i) for i in range(scenario.clients.count)]
    together = Labelled(
        np.concatenate([owner.train.images for owner in owners]),
        np.concatenate([owner.train.labels for owner in owners]),
    )
    total = 1 + len(owners)
    on_event(Event("baselines", 0, total, "everybody's plain images together"))
    plain = _training(population, together)
    central = _accuracy(plain, population.dataset)
    alone = []
    for i, owner in enumerate(owners):
        on_event(Event("baselines", 1 + i, total, f"owner {i} alone"))
        try:
            run = _training(population, owner.train)
        except TrainingError:  # the scenario is sound, or all together would have failed
            continue
        alone.append(_accuracy(run, population.dataset))
    on_event(Event("baselines", total, total))
    return {
        "test_images": len(population.dataset.test.labels),
        "precision": plain.precision,
        "central_plain": central,
        "alone": {
            "mean": fmean(alone) if alone else None,
            "std": pstdev(alone) if alone else None,
            "owners": len(alone),
            "too_small": len(owners) - len(alone),
        },
    }


def _training(population: Population, train: Labelled) -> Run[Network]:
    """The provider's training, on plain images. TrainingError: there are too few of them."""
    scenario, dataset = population.scenario, population.dataset
    shape = train.images.shape[1:]
    augmentation = scenario.augmentation
    plain = augmentation.domain == "plain"
    method = augmentation.train if plain else server_method(augmentation)
    protection = population.protection(0)
    model = scenario.model
    if protection.name not in ("pixel", "none"):  # their plain training may use folded values
        model = model.model_copy(update={"input": "raw"})
    return fit(
        network(
            model,
            shape,
            len(dataset.classes),
            scenario.seed,
            cipher=protection.name,
            cipher_params=protection.params(),
        ),
        TrainingSet(torch.from_numpy(train.images), torch.from_numpy(train.labels)),
        training_config(scenario.training, augmentation, method=method),
        seed=scenario.seed,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )


def _accuracy(run: Run[Network], dataset: Dataset) -> float:
    """Train, and score the whole test set."""
    for _ in run:
        pass
    images = torch.from_numpy(np.array(dataset.test.images))
    scores = predict(run.model, images, device=run.device)
    return float((scores.argmax(1).numpy() == dataset.test.labels).mean())
