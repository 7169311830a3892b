"""The networks beside torchvision's, which they are not made of: same names, same functions."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.densenet import _Transition
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import cfgs, make_layers

from fedenc import models
from fedenc.models import densenet, resnet, vgg


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def same(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Same parameters, and with the same values in them the same outputs, in training too."""
    state = theirs.state_dict()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    ours.load_state_dict(state)
    for module in (ours, theirs):
        module.train()
    assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("stride", [1, 2])
def test_basic_block(stride: int) -> None:
    def shortcut() -> nn.Module | None:
        return nn.Conv2d(8, 16, 1, stride) if stride > 1 else None

    outputs = 16 if stride > 1 else 8
    theirs = BasicBlock(8, outputs, stride, shortcut())
    same(resnet.BasicBlock(8, outputs, stride, shortcut()), theirs, images(2, 8, 9, 9))


def test_transition() -> None:
    same(densenet.transition(12), _Transition(12, 12), images(2, 12, 8, 8))


def test_convolutions_of_vgg16() -> None:
    convolutions = vgg.vgg16_bn(3, 10)[: len(make_layers(cfgs["D"], batch_norm=True))]
    same(convolutions, make_layers(cfgs["D"], batch_norm=True), images(2, 3, 32, 32))


def _resnet18(channels: int, classes: int) -> nn.Module:
    """torchvision's, with the usual stem for small images."""
    body: nn.Module = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    body.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    body.maxpool = nn.Identity()
    return body


def test_resnet18() -> None:
    same(resnet.resnet18(3, 7), _resnet18(3, 7), images(2, 3, 16, 16))


def _vgg16(channels: int, classes: int) -> nn.Module:
    """Ours, with torchvision's convolutions drawn in the place of our own."""
    features = make_layers(cfgs["D"], batch_norm=True)
    if channels != 3:
        features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    head = [nn.Linear(512, 512), nn.Linear(512, 512), nn.Linear(512, classes)]
    body = nn.Sequential(*features, *head)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return body


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("ours", "theirs"), [(resnet.resnet18, _resnet18), (vgg.vgg16_bn, _vgg16)])
def test_a_seed_gives_the_weights_that_torchvisions_layers_would_get(
    ours: Callable[[int, int], nn.Module], theirs: Callable[[int, int], nn.Module], channels: int
) -> None:
    def drawn(make: Callable[[int, int], nn.Module]) -> list[Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return list(make(channels, 10).parameters())

    assert all(torch.equal(a, b) for a, b in zip(drawn(ours), drawn(theirs), strict=True))


def test_no_network_imports_torchvision_or_the_compiler() -> None:
    code = (
        "import sys; from fedenc import models\n"
        "for name in models.names(): models.build(name, channels=3, classes=2, size=(32, 32))\n"
        "print(*(n for n in sys.modules if n in ('torchvision', 'torch._dynamo')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split(), models.names()
