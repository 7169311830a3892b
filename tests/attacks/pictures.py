"""Small targets for attacks that train networks."""

import torch
from torch import Tensor
from victims import photos

from fedenc import ciphers
from fedenc.attacks.base import Labelled
from fedenc.attacks.target import Target, keyed, make_target
from fedenc.keys import Policy


def pictures(
    cipher: str,
    policy: Policy,
    count: int = 16,
    *,
    size: int = 8,
    public: int = 256,
    owners: int = 2,
    **params: bool | int | str,
) -> Target:
    """``count`` photographs as uploads and ``public`` others, of size×size pixels."""
    every = photos()
    order = torch.randperm(len(every.labels), generator=torch.Generator().manual_seed(5))
    own, rest = order[:count], order[count : count + public]
    images = torch.nn.functional.adaptive_avg_pool2d(every.images.float(), size).to(torch.uint8)
    return make_target(
        keyed(ciphers.make(cipher, **params), policy, owners),
        images[own],
        every.labels[own],
        torch.arange(count) % owners,
        public=Labelled(images[rest], every.labels[rest], every.classes),
    )


def error(target: Target, estimate: Tensor | None) -> float:
    """Mean squared error of an estimate, as a share of that of the public images' mean."""
    assert estimate is not None
    assert target.public is not None
    assert estimate.dtype == torch.uint8
    assert estimate.shape == target.plain.shape
    control = target.public.images.float().mean(0)
    plain = target.plain.float()
    return float((estimate - plain).square().mean() / (control - plain).square().mean())
