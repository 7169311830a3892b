"""What encryption and collaboration cost and gain: the same data and recipe, trained plain.

Run by the driver, which simulates everybody, never by the provider.
"""

from collections.abc import Callable
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch

from clients.participant import Labelled
from clients.simulated import Population
from fedenc.data import Dataset
from fedenc.scenario import Scenario
from fedenc.training.loop import fit
from fedenc.training.predict import predict
from server.app import Event
from server.recipe import network, training_config

Report = Callable[[Event], None]


def measure(scenario: Scenario, report: Report) -> dict[str, Any]:
    """Accuracies on plain test images of all participants' held-out sets.

    Returns:
        ``central_plain``: one model on everybody's plain images; ``alone``: one model an owner on
        its own plain images only, mean and deviation over owners.
    """
    population = Population(scenario)
    owners = [population.participant(i) for i in range(scenario.clients.count)]
    together = Labelled(
        np.concatenate([owner.train.images for owner in owners]),
        np.concatenate([owner.train.labels for owner in owners]),
    )
    total = 1 + len(owners)
    report(Event("baselines", 0, total, "everybody's plain images together"))
    central = _accuracy(scenario, together, population.dataset)
    alone = []
    for i, owner in enumerate(owners):
        report(Event("baselines", 1 + i, total, f"owner {i} alone"))
        alone.append(_accuracy(scenario, owner.train, population.dataset))
    report(Event("baselines", total, total))
    return {
        "test_images": len(population.dataset.test.labels),
        "central_plain": central,
        "alone": {"mean": fmean(alone), "std": pstdev(alone), "owners": len(alone)},
    }


def _accuracy(scenario: Scenario, train: Labelled, dataset: Dataset) -> float:
    """Train as the provider would, and score the whole test set."""
    images, labels = dataset.test.images, dataset.test.labels
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = train.images.shape[1:]
    model = network(scenario.model, shape, len(dataset.classes), scenario.seed)
    augmentation = scenario.augmentation
    methods = {"plain": augmentation.train, "encrypted": augmentation.server}
    run = fit(
        model,
        torch.from_numpy(train.images),
        torch.from_numpy(train.labels),
        config=training_config(
            scenario.training, augmentation, method=methods.get(augmentation.domain, "none")
        ),
        seed=scenario.seed,
        device=device,
    )
    for _ in run:
        pass
    scores = predict(model, torch.from_numpy(np.array(images)), device=device)
    return float((scores.argmax(1).numpy() == labels).mean())
