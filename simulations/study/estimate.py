"""How long a study will take, before it is started: a training step of each network is timed."""

import time
from datetime import timedelta

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from clients.simulated import Population
from fedenc.scenario import Scenario
from server.recipe import network, server_method, training_config
from simulations.study.design import Design

_STEPS = 3  # timed, after one that is not
_START_UP = 20.0  # seconds that a run takes besides training, on two cores


def seconds(scenario: Scenario, rates: dict[str, float]) -> float:
    """A run's time on this machine, alone; the rate of each network is measured once.

    Args:
        rates: images a second by network and batch size, added to as they are measured.
    """
    population = Population(scenario)
    rows = sum(len(part) for part in population.partitions) * scenario.encryption.views
    config = training_config(
        scenario.training, scenario.augmentation, method=server_method(scenario.augmentation)
    )
    key = f"{scenario.model.name} {scenario.model.adapter} {config.batch_size}"
    if key not in rates:
        rates[key] = _measured(scenario, population)
    models = len(scenario.model.variants())
    return _START_UP + models * rows * config.epochs / rates[key]


def _measured(scenario: Scenario, population: Population) -> float:
    """Images a second of a few steps."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classes = len(population.dataset.classes)
    protection = population.protection(0)
    shape = protection.output_shape(*population.dataset.shape)
    config = training_config(scenario.training, scenario.augmentation, method="none")
    model = network(
        scenario.model,
        shape,
        classes,
        0,
        cipher=protection.name,
        cipher_params=protection.params(),
    )
    model.to(device).train()
    batch = torch.zeros(config.batch_size, *shape, dtype=torch.uint8, device=device)
    begun = 0.0
    for step in range(1 + _STEPS):
        if step == 1:
            begun = time.perf_counter()
        model(batch).float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return _STEPS * config.batch_size / (time.perf_counter() - begun)


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
