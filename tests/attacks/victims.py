"""Targets for tests: real images under real keys."""

from functools import cache

import torch

from fedenc import ciphers
from fedenc.attacks.base import Attack, Findings, Labelled, Means
from fedenc.attacks.target import Target, keyed, make_target
from fedenc.data import load
from fedenc.keys import Policy


@cache
def photos() -> Labelled:
    """All patches of the built-in photographs: training first, then test."""
    data = load("photos")
    images = [torch.from_numpy(split.images.copy()) for split in (data.train, data.test)]
    labels = [torch.from_numpy(split.labels.copy()) for split in (data.train, data.test)]
    return Labelled(torch.cat(images), torch.cat(labels), len(data.classes))


def victims(
    cipher: str, policy: Policy, count: int = 100, owners: int = 4, **params: bool | int | str
) -> Target:
    """``count`` photographs of as many owners, spread over the classes; 200 others are public, and
    half of the 100 candidates were uploaded."""
    every = photos()
    order = torch.randperm(len(every.labels), generator=torch.Generator().manual_seed(count))
    own, public, foils = order[:count], order[count : count + 200], order[-50:]
    shown = torch.arange(50) % count
    return make_target(
        keyed(ciphers.make(cipher, **params), policy, owners),
        every.images[own],
        every.labels[own],
        torch.arange(count) % owners,
        public=Labelled(every.images[public], every.labels[public], every.classes),
        candidates=torch.cat((every.images[own[shown]], every.images[foils])),
        candidate_labels=torch.cat((every.labels[own[shown]], every.labels[foils])),
        shown=torch.cat((shown, torch.full((50,), -1))),
    )


def attacked(attack: Attack, target: Target, seed: int = 0) -> Findings:
    """What an attack finds with what it declares."""
    return attack.run(target.observe(attack.needs(target.method)), Means(seed))
