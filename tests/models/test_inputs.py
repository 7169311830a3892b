import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedenc import ciphers
from fedenc.errors import TrainingError
from fedenc.models import inputs
from fedenc.models.inputs import InputStage


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def negative_positive(images: torch.Tensor, seed: int) -> torch.Tensor:
    flips = pixels(*images.shape, seed=seed) < 128
    return torch.where(flips, 255 - images, images)


def shuffle_colours(images: torch.Tensor, seed: int) -> torch.Tensor:
    ranks = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))
    return images.gather(1, ranks.argsort(dim=1))


def test_fold_is_the_distance_to_the_nearer_end_for_all_values():
    values = torch.arange(256, dtype=torch.uint8)
    assert inputs.fold(values).tolist() == [min(p, 255 - p) for p in range(256)]


@given(st.sampled_from([1, 2, 3, 4]), st.integers(0, 2**31))
def test_plain_and_encrypted_enter_as_the_same_bits(channels, seed):
    images = pixels(5, channels, 6, 7, seed=seed)
    protected = negative_positive(images, seed + 1)
    stage = InputStage(channels, "invariant-np")
    assert torch.equal(stage(protected), stage(images))
    protected = shuffle_colours(protected, seed + 2)
    stage = InputStage(channels, "invariant")
    assert torch.equal(stage(protected), stage(images))


@given(st.sampled_from([1, 3, 4]), st.integers(0, 2**31))
def test_the_sorted_fold_is_ascending_and_keeps_each_pixels_values(channels, seed):
    images = pixels(3, channels, 5, 4, seed=seed)
    assert torch.equal(inputs.fold_sorted(images), inputs.fold(images).sort(dim=1).values)


@pytest.mark.parametrize("kind", inputs.KINDS)
def test_the_memory_format_stays(kind):
    images = pixels(2, 3, 6, 6)
    strided = images.contiguous(memory_format=torch.channels_last)
    assert InputStage(3, kind)(images).is_contiguous()
    values = InputStage(3, kind)(strided)
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(values, InputStage(3, kind)(images))


@pytest.mark.parametrize("kind", inputs.KINDS)
def test_measured_statistics_standardise_the_pool(kind):
    images = pixels(50, 3, 8, 8) // 2 + torch.tensor([0, 20, 40], dtype=torch.uint8).view(3, 1, 1)
    stage = InputStage(3, kind)
    stage.measure(images, chunk=7)
    values = stage(images).double()
    assert torch.allclose(values.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-5)
    assert torch.allclose(
        values.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5
    )


def test_statistics_do_not_depend_on_the_order_of_the_images():
    images = pixels(64, 3, 8, 8)
    one, other = InputStage(3), InputStage(3)
    one.measure(images)
    other.measure(images[torch.randperm(64, generator=torch.Generator().manual_seed(1))], chunk=5)
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.std, other.std)


def test_a_constant_channel_stays_finite():
    stage = InputStage(1)
    images = torch.full((4, 1, 3, 3), 9, dtype=torch.uint8)
    stage.measure(images)
    assert torch.allclose(stage(images), torch.zeros(4, 1, 3, 3), atol=1e-5)


def test_statistics_travel_with_the_weights():
    stage = InputStage(3)
    stage.measure(pixels(10, 3, 8, 8))
    other = InputStage(3)
    other.load_state_dict(stage.state_dict())
    assert torch.equal(other(pixels(2, 3, 8, 8)), stage(pixels(2, 3, 8, 8)))


def test_what_does_not_exist_is_refused():
    with pytest.raises(TrainingError, match="'folded'; expected one of raw, invariant"):
        InputStage(3, "folded")
    with pytest.raises(TrainingError, match="2 means and 3 deviations"):
        InputStage(3).set([0.5, 0.5], [0.2, 0.2, 0.2])
    with pytest.raises(TrainingError, match="positive"):
        InputStage(1).set([0.5], [0.0])


@pytest.mark.parametrize("cipher", [None, "none", "pixel"])
def test_without_blocks_the_invariant_input_is_the_sorted_fold(cipher):
    images = pixels(4, 3, 6, 6)
    stage = InputStage(3, "invariant", cipher, {"color_shuffle": False})
    assert torch.equal(stage.features(images), inputs.fold_sorted(images))


def test_the_invariant_input_of_another_cipher_is_its_canonical_form():
    images = pixels(4, 3, 16, 16)
    cipher = ciphers.make("etc", block_size=8)
    stage = InputStage(3, "invariant", "etc", cipher.params())
    assert torch.equal(stage.features(images), cipher.canonical(images))


def test_a_cipher_without_a_form_has_no_invariant_input():
    with pytest.raises(TrainingError, match="'logistic-rc4' has no canonical form; use 'raw'"):
        InputStage(3, "invariant", "logistic-rc4", {"drop": 0})
