"""No attack sees the truth: with other images behind the same uploads it finds the same."""

from dataclasses import replace

import pytest
import torch
from victims import victims

from fedenc import attacks
from fedenc.attacks.base import Knowledge, Means
from fedenc.attacks.suite import left_out
from fedenc.attacks.target import Target
from fedenc.keys import Policy

QUICK = (
    "observe",
    "fr-basic",
    "fr-advanced",
    "link",
    "principal-component",
    "known-pairs",
    "affine",
    "colluders",
    "seed-search",
)


def falsified(target: Target, knowledge: frozenset[Knowledge]) -> Target:
    """The same uploads, with noise in place of every image that the attacker does not know."""
    hidden = target.hidden(knowledge)
    plain = target.plain.clone()
    noise = torch.randint(256, plain.shape, generator=torch.Generator().manual_seed(9))
    plain[hidden] = noise[hidden].to(torch.uint8)
    if Knowledge.COLOURS in knowledge:
        plain[:, :, 0, 0] = target.plain[:, :, 0, 0]
    labels = target.labels if Knowledge.LABELS in knowledge else torch.zeros_like(target.labels)
    shown = None if target.shown is None else torch.full_like(target.shown, -1)
    return replace(target, plain=plain, labels=labels, shown=shown)


@pytest.mark.parametrize("policy", ["same", "image"])
@pytest.mark.parametrize("name", QUICK)
def test_an_attack_finds_the_same_whatever_the_truth_is(name: str, policy: Policy) -> None:
    attack = attacks.make(name)
    target = victims("pixel", policy, count=40)
    if left_out(attack, target):
        pytest.skip("does not apply")
    found = [
        attack.run(one.observe(attack.knowledge), Means())
        for one in (target, falsified(target, attack.knowledge))
    ]
    for field in ("images", "links", "members"):
        first, second = (getattr(one, field) for one in found)
        assert (first is None) == (second is None)
        assert first is None or torch.equal(first, second), field
    for keys in zip(*(one.key or () for one in found), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(*keys, strict=True))
