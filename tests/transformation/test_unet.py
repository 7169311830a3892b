import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc.errors import TrainingError
from fedenc.training import rng
from fedenc.transformation.config import TransformationConfig
from fedenc.transformation.unet import UNet


def unet(*widths: int) -> UNet:
    with rng.seeded(0, "test"):
        return UNet(widths)


def parameters(widths: tuple[int, ...]) -> int:
    """Counted by hand: k·k·in·out + out of a convolution, 2·out of a normalisation."""

    def level(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 9 * outputs * outputs + 6 * outputs

    ins = (3, *widths[:-1])
    down = sum(level(i, o) for i, o in zip(ins, widths, strict=True))
    pairs = list(zip(widths[1:], widths, strict=False))
    up = sum(9 * outer * inner + 3 * inner for outer, inner in pairs)
    merge = sum(level(2 * inner, inner) for _, inner in pairs)
    return down + up + merge + 3 * widths[0] + 3


@pytest.mark.parametrize("widths", [(4, 8), (4, 6, 5), (16, 32, 64, 128, 256)])
def test_its_layers_are_the_published_ones(widths):
    assert sum(p.numel() for p in UNet(widths).parameters()) == parameters(widths)


def test_with_the_authors_widths_it_has_34_5_million_parameters():
    with torch.device("meta"):
        network = UNet(TransformationConfig().widths)
    assert sum(p.numel() for p in network.parameters()) == 34_527_171


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    sides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_images_come_out_as_they_went_in_in_shape_and_range(widths, sides):
    network = UNet(widths).eval()
    height, width = (2 * network.stride * side for side in sides)
    images = torch.rand(2, 3, height, width)
    out = network(images)
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1


def test_two_levels_written_out():
    """Against the same arithmetic in functions: skip first, then what comes from below."""
    network = unet(4, 8).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)

    def convolve(x, convolution, norm):
        y = F.conv2d(x, convolution.weight, convolution.bias, padding=1)
        shape = (1, -1, 1, 1)
        y = (y - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
        return (y * norm.weight.view(shape) + norm.bias.view(shape)).relu()

    def level(x, layers):
        return convolve(convolve(x, layers[0], layers[1]), layers[3], layers[4])

    x = torch.rand(2, 3, 8, 8)
    top = level(x, network.down[0])
    deep = level(top.view(2, 4, 4, 2, 4, 2).amax(dim=(3, 5)), network.down[1])
    larger = deep.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    up = convolve(larger, network.up[0][1], network.up[0][2])
    merged = level(torch.cat((top, up), dim=1), network.merge[0])
    last = network.last
    expected = (torch.einsum("nchw,oc->nohw", merged, last.weight[:, :, 0, 0])) + last.bias.view(
        1, 3, 1, 1
    )
    assert torch.allclose(network(x), expected.sigmoid(), atol=1e-5)


def test_every_parameter_takes_part():
    network = unet(4, 8, 8).train()
    network(torch.rand(4, 3, 8, 8)).sum().backward()
    # A bias in front of a batch normalisation is subtracted again; its gradient is only noise.
    assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad.abs().max() > 0 for p in network.parameters() if p.ndim > 1)


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(TrainingError, match=r"30×32 pixels; .* 3 levels .* multiples of 4"):
        unet(4, 8, 8)(torch.rand(1, 3, 30, 32))
