"""CIFAR-10's test images as attacks' targets, where the data set is at hand."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedenc import ciphers
from fedenc.attacks.target import Target, keyed, make_target
from fedenc.data import load
from fedenc.keys import Policy

CIFAR = Path(__file__).parents[3] / "shared/data/cifar10"


@cache
def cifar_images() -> Tensor:
    """uint8 (10000, 3, 32, 32)."""
    if not CIFAR.is_dir():
        pytest.skip(f"{CIFAR} is missing")
    return torch.from_numpy(load("cifar10", root=CIFAR).test.images.copy())


def cifar(
    cipher: str, policy: Policy, count: int = 100, start: int = 0, **params: bool | int | str
) -> Target:
    """Consecutive test images of four owners."""
    images = cifar_images()[start : start + count]
    owners = torch.arange(count) % 4
    made = ciphers.make(cipher, **params)
    return make_target(keyed(made, policy, 4), images, torch.zeros(count).long(), owners)
