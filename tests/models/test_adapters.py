import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedenc import models
from fedenc.errors import TrainingError
from fedenc.models import adapters
from fedenc.models.adapters import ADAPTERS, BlockLinear, BlockSpectralNorm, EleAdaptNet
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit
from fedenc.training.model_files import weights_sha256
from fedenc.training.training_set import TrainingSet

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(("channels", "size"), [(3, (8, 12)), (1, (16, 8))])
def test_an_adapter_keeps_the_size_and_hands_over_what_it_says(name, channels, size):
    front = ADAPTERS[name].make(channels, size)
    assert front(torch.zeros(2, channels, *size)).shape == (
        2,
        ADAPTERS[name].outputs or channels,
        *size,
    )
    model = models.build("resnet20", channels=channels, classes=3, size=size, adapter=name)
    assert model(torch.zeros(2, channels, *size, dtype=torch.uint8)).shape == (2, 3)


def test_the_pointwise_adapter_has_3_8_32_3_channels_and_sees_one_pixel():
    front = adapters.conv1x1(3, (32, 32))
    assert sum(p.numel() for p in front.parameters()) == (3 + 1) * 8 + (8 + 1) * 32 + (32 + 1) * 3
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, :, 3, 5] += 1
    difference = (front(changed) != front(x)).any(dim=1)[0]
    assert difference.nonzero().tolist() == [[3, 5]]


def test_le_adaptnet_treats_equal_blocks_equally_and_apart():
    front = adapters.le_adaptnet(3, (8, 8)).eval()
    block = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = front(block.repeat(1, 1, 2, 2))
    assert torch.allclose(whole[:, :, :4, :4], whole[:, :, 4:, 4:], atol=1e-6)


def test_ele_embedding_is_a_convolution_of_its_own_for_each_block():
    layer = BlockLinear(4, 48, 10)
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    blocks = F.unfold(x, 4, stride=4).transpose(1, 2)
    found = layer(blocks)
    for position in range(4):
        row, column = divmod(position, 2)
        kernel = layer.weight[position].view(10, 3, 4, 4)
        convolved = F.conv2d(x, kernel, layer.bias[position, 0], stride=4)[:, :, row, column]
        assert torch.allclose(found[:, position], convolved, atol=1e-5)


def test_batched_power_iteration_finds_the_spectral_norm():
    with torch.random.fork_rng():
        weight = torch.randn(5, 20, 12, generator=torch.Generator().manual_seed(0))
        norm = BlockSpectralNorm(5, 20).train()
    for _ in range(300):
        scaled = norm(weight)
    assert torch.allclose(torch.linalg.matrix_norm(scaled, ord=2), torch.ones(5), atol=1e-3)


def test_permutations_and_only_they_go_unpenalised():
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    permutation = torch.eye(16)[order]
    assert adapters._distance_from_permutation(permutation) == 0
    assert adapters._distance_from_permutation(-permutation) == 0


def test_the_permutation_penalty_is_the_published_one():
    spread = torch.full((64, 64), -1 / 64)
    # each of 128 rows and columns: L1 norm 1, L2 norm 1/8
    assert adapters._distance_from_permutation(spread) == pytest.approx(128 * 7 / 8 / 4096)


def test_the_smoothness_penalty_is_the_published_one():
    images = torch.zeros(2, 16, 32, 32)
    images[:, 1] = 3 * torch.arange(32.0)  # to the right
    images[0, 2] = 5 * torch.arange(32.0)[:, None]  # downwards, in one image of two
    images[:, 3:] = torch.rand(13, 32, 32, generator=torch.Generator().manual_seed(0))
    squares = 2 * 31 * 31 * 3**2 + 31 * 31 * 5**2
    found = adapters._total_variation(images)
    assert found == pytest.approx(squares / (31 * 32 * 16) / 2)


def test_the_mixing_matrix_moves_blocks():
    front = EleAdaptNet(3, (8, 8)).eval()
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        front.mix.copy_(torch.eye(4))
        straight = front(x)
        front.mix.copy_(torch.eye(4)[[1, 0, 3, 2]])
        swapped = front(x)
    assert torch.allclose(swapped[:, :, :, :4], straight[:, :, :, 4:], atol=1e-6)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_network_with_an_adapter_trains_and_resumes(name):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(24) % 3
    config = TrainingConfig(epochs=2, batch_size=8, learning_rate=0.02)

    def run(state=None):
        model = models.build("resnet20", channels=3, classes=3, size=(8, 8), adapter=name)
        before = [p.detach().clone() for p in model.adapter.parameters()]
        data = TrainingSet(images, labels)
        made = fit(model, data, config, seed=0, device=CPU, state=state)
        next(made)
        halfway = made.checkpoint()
        list(made)
        after = list(model.adapter.parameters())
        assert all(not torch.equal(p, q) for p, q in zip(before, after, strict=True))
        return weights_sha256(model), halfway

    digest, halfway = run()
    assert run(halfway)[0] == digest


def test_the_penalty_of_the_last_pass_is_part_of_the_loss():
    model = models.build("resnet20", channels=3, classes=3, size=(8, 8), adapter="ele-adaptnet")
    model(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    penalty = model.penalty()
    assert penalty is not None
    penalty.backward()
    assert model.adapter.mix.grad.abs().sum() > 0
    plain = models.build("resnet20", channels=3, classes=3, size=(8, 8))
    assert isinstance(plain.adapter, nn.Identity)
    assert plain.penalty() is None


def test_sizes_that_do_not_divide_into_blocks_are_refused():
    with pytest.raises(TrainingError, match="width is 10; expected at least 4 and a multiple of 4"):
        models.build("resnet20", channels=3, classes=3, size=(8, 10), adapter="le-adaptnet")
    with pytest.raises(TrainingError, match="'le'; expected none or one of conv1x1"):
        models.build("resnet20", channels=3, classes=3, size=(8, 8), adapter="le")
    with pytest.raises(TrainingError, match="height is 16; expected at least 32"):
        models.build("vgg16_bn", channels=3, classes=3, size=(16, 32))
