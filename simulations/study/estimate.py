"""How long a study will take, before it is started: a training step of each network is timed."""

import time
from collections.abc import Callable
from datetime import timedelta

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from clients.simulated import Population
from fedenc import models
from fedenc.data.augment import named
from fedenc.models.network import Network
from fedenc.scenario import Scenario
from fedenc.shard import ParamValue
from fedenc.transformation import bundle
from fedenc.transformation.gan import LEVELS
from server.recipe import network, server_method, training_config
from simulations import third_party
from simulations.study.design import Design

_STEPS = 3  # timed at most, after one that is not
_SECONDS, _IMAGES = 2.0, 32  # after which no step is begun; on a CPU, that a step takes at most
_START_UP = 20.0  # seconds that a run takes besides training, on two cores


def seconds(scenario: Scenario, rates: dict[str, float]) -> float:
    """A run's time on this machine, alone; the rate of each network is measured once.

    Args:
        rates: images a second by network and batch size, added to as they are measured.
    """
    population = Population(scenario)
    found = _START_UP
    if scenario.awaits_bundle:
        found += _third_party(population, rates)
    if not scenario.uploads:
        return found
    method, model = server_method(scenario.augmentation), scenario.model
    config = training_config(scenario.training, scenario.augmentation, method=method)
    made = scenario.augmentation.train if scenario.augmentation.domain == "plain" else "none"
    images = sum(len(part) for part in population.partitions)
    images *= named(method).copies * named(made).copies  # an epoch visits one view of each
    shape, parameters = population.dataset.shape, dict[str, ParamValue]()
    if not scenario.awaits_bundle:
        protection = population.protection(0)
        shape, parameters = protection.output_shape(*shape), protection.params()
    classes = len(population.dataset.classes)
    cipher = scenario.encryption.cipher

    def built() -> nn.Module:
        return network(model, shape, classes, 0, cipher=cipher, cipher_params=parameters)

    name = f"{model.name} {model.adapter} {shape}"
    rate = _rate(name, built, shape, config.batch_size, rates)
    return found + len(model.variants()) * images * config.epochs / rate


def _third_party(population: Population, rates: dict[str, float]) -> float:
    """Seconds of training classifiers, and a network in front of one. A GAN takes longer."""
    scenario, dataset = population.scenario, population.dataset
    settings, (channels, *size) = scenario.transformation, dataset.shape
    images = settings.share() * len(dataset.train.labels)
    classes = len(dataset.classes)
    training = third_party.training_config(scenario)
    classifier = third_party.training_config(scenario, classifier=True)
    widths = settings.widths if settings.method == "unet" else settings.widths[:LEVELS]

    def built() -> nn.Module:
        return models.build(
            settings.classifier, channels=channels, classes=classes, size=(size[0], size[1])
        )

    def transforming() -> nn.Module:
        return bundle.build(settings.method, {"widths": widths})

    batch = training.batch_size
    psi = _rate(f"{settings.classifier} plain", built, dataset.shape, batch, rates)
    name = f"{settings.method} {widths}"
    h = _rate(name, transforming, dataset.shape, batch, rates)
    alone = classifier.epochs * (1 + settings.foreign) / psi
    return images * (alone + training.epochs * (1 / h + 1 / psi))


def _rate(
    name: str,
    built: Callable[[], nn.Module],
    shape: tuple[int, ...],
    batch_size: int,
    rates: dict[str, float],
) -> float:
    """Images a second of a few steps of a network on images of this shape (C, H, W)."""
    key = f"{name} {batch_size}"
    if key not in rates:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = built().to(device).train()
        plain = isinstance(model, Network)  # it takes bytes; others take values from 0 to 1
        kind = torch.uint8 if plain else torch.float32
        size = batch_size if device.type == "cuda" else min(batch_size, _IMAGES)
        batch = torch.zeros(size, *shape, dtype=kind, device=device)
        begun, seconds, images = 0.0, 0.0, -size
        while images < _STEPS * size and seconds < _SECONDS:
            model(batch).float().sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            images += size
            now = time.perf_counter()
            begun, seconds = (now, 0.0) if images == 0 else (begun, now - begun)
        rates[key] = images / seconds
    return rates[key]


def show(console: Console, design: Design) -> None:
    """Print every run with an estimate of its time."""
    table = Table(title=design.question, title_justify="left", box=box.SIMPLE)
    table.add_column("run")
    table.add_column("about", justify="right")
    rates: dict[str, float] = {}
    total = 0.0
    for cell in design.cells:
        one = seconds(cell.scenario, rates)
        total += one
        table.add_row(cell.text, str(timedelta(seconds=round(one))))
    console.print(table)
    console.print(
        f"{len(design.cells)} runs, about {timedelta(seconds=round(total))} one after another on "
        "this machine: a timed training step of each network, and 20 s for the rest of each run.",
        highlight=False,
    )
