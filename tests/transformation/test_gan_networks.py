"""Generator and discriminator of the GAN-based transformation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc.errors import TrainingError
from fedenc.training import rng
from fedenc.transformation.gan import Discriminator, Generator, build_generator, check_size


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def build(*widths: int) -> Generator:
    with rng.seeded(1, "test"):
        return Generator(widths)


@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None)
def test_networks_take_the_sizes_that_are_checked(
    widths: list[int], height: int, width: int
) -> None:
    factor = 2 ** (len(widths) - 1)
    plain = images(2, 3, height, width)
    if height % factor or width % factor or min(height, width) < max(4, 3 * factor):
        with pytest.raises(TrainingError, match=rf"{height}×{width} pixels; .* of {factor}, from"):
            build(*widths)(plain)
        with pytest.raises(TrainingError, match="takes sides that are multiples"):
            check_size(widths, height, width)
        return
    made = build(*widths)(plain)
    assert made.shape == plain.shape
    assert made.dtype == torch.float32
    assert 0 <= made.min() <= made.max() <= 1
    count, channels, *_ = Discriminator(widths)(made).shape
    assert (count, channels) == (2, 1)


@pytest.mark.parametrize("training", [False, True])
def test_an_image_does_not_depend_on_its_neighbours(training: bool) -> None:
    generator = build(4, 8).train(training)
    plain = images(5, 3, 16, 24)
    with torch.no_grad():
        together = generator(plain)
        alone = torch.cat([generator(image[None]) for image in plain])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_whole_range_can_be_reached() -> None:
    generator = build(4)
    with torch.no_grad():
        for value, sign in ((0.0, -1), (1.0, 1)):
            generator.layers[-1].bias.fill_(sign * 1e4)
            assert (generator(images(1, 3, 8, 8)) == value).all()


def test_default_widths_are_those_of_cyclegan() -> None:
    """Parameters counted by hand: 7×7, two down, 2·6 in residual blocks, two up, 7×7 and bias."""
    generator = build_generator((64, 128, 256, 512, 1024))
    assert generator.widths == (64, 128, 256)
    kernels = 3 * 64 * 49 + 9 * (64 * 128 + 128 * 256) + 12 * 9 * 256**2
    kernels += 9 * (256 * 128 + 128 * 64) + 64 * 3 * 49 + 3
    assert sum(p.numel() for p in generator.parameters()) == kernels


def test_initialisation_follows_the_seed() -> None:
    first, second = build(8, 16).state_dict(), build(8, 16).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    largest = first["layers.6.first.weight"]
    assert largest.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("widths", [(), (0, 4), (1, 2, 3, 4)])
def test_widths_that_do_not_exist(widths: tuple[int, ...]) -> None:
    with pytest.raises(TrainingError, match="expected one to 3 positive widths"):
        Generator(widths)
