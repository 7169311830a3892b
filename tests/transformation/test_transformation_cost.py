"""What a participant pays, counted by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedenc.training import rng
from fedenc.transformation import bundle
from fedenc.transformation.config import TransformationConfig
from fedenc.transformation.cost import cost


def saved(folder: Path, method: str, architecture: dict[str, Any]) -> bundle.Transformation:
    with rng.seeded(1, "test"):
        network = bundle.build(method, architecture)
    facts: dict[str, Any] = {"classes": ["a", "b"], "info": {}, "size": (16, 24)}
    bundle.save_transformation(folder, network, method=method, architecture=architecture, **facts)
    return bundle.load_transformation(folder)


def multiplications(network: nn.Module, height: int, width: int) -> int:
    """Of all convolutions: weights times the places that each is applied at."""
    places: list[int] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        transposed = isinstance(module, nn.ConvTranspose2d)
        image = inputs[0] if transposed else output
        places.append(module.weight.numel() * image.shape[2] * image.shape[3])

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, height, width))
    return sum(places)


@pytest.mark.parametrize(
    ("method", "architecture"),
    [("unet", {"widths": [4, 8]}), ("gan", {"widths": [4, 8], "blocks": 2})],
)
def test_cost_is_what_the_layers_say(
    tmp_path: Path, method: str, architecture: dict[str, Any]
) -> None:
    transformation = saved(tmp_path, method, architecture)
    found = cost(transformation, images=4, repeats=3)
    network = bundle.build(method, architecture)
    assert found["parameters"] == sum(p.numel() for p in network.parameters())
    assert found["mflop_per_image"] == 2 * multiplications(network.eval(), 16, 24) / 1e6
    file = tmp_path / bundle.PARTICIPANTS / bundle.WEIGHTS
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert found["bytes"] == file.stat().st_size - 8 - header
    assert 0 < found["ms_least"] <= found["ms_per_image"] <= found["ms_most"]
    json.dumps(found)


def test_what_the_published_network_costs() -> None:
    """As docs/transformation.md states it."""
    network = bundle.build("unet", {"widths": list(TransformationConfig().widths)}).eval()
    published = bundle.Transformation("", {"size": [32, 32]}, network)
    found = cost(published, images=1, repeats=1)
    assert round(found["bytes"] / 1e6) == 138
    assert round(found["mflop_per_image"]) == 2042


def test_a_gan_fits_a_bundle(tmp_path: Path) -> None:
    transformation = saved(tmp_path, "gan", {"widths": [4, 8, 8]})
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (20, 3, 16, 24), dtype=torch.uint8, generator=generator)
    protected = transformation.protect(images)
    assert torch.equal(transformation.protect(images[7:9]), protected[7:9])
    with torch.no_grad():
        expected = transformation.network(images[:1] / 255)
    assert ((255 * expected - protected[:1]).abs() <= 0.51).all()
