import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from fedenc import models
from fedenc.errors import TrainingError
from fedenc.models.resnet import PaddedShortcut

# VGG, configuration D: 3×3 convolutions with bias, each with the two vectors of its normalisation
_VGG = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
# widths before the 36 layers of DenseNet (40, 12): 16, growing by 12
_DENSE = [16 + 12 * layer for layer in range(36)]


def _ours(*widths):
    """Stem, then two convolutions with their normalisations at each width, then the classes."""
    convolutions = sum(9 * i * o + 9 * o * o + 4 * o for i, o in pairwise([24, *widths]))
    return 24 * (12 + 1) + convolutions + (widths[-1] + 1) * 10


# Trainable parameters for RGB and ten classes. ResNet-20 (0.27 M, He et al. 2016, table 6) and
# ResNet-18 to the digit as public implementations report them; the others counted from the papers'
# layer tables: DenseNet (40, 12) has 1.0 M (Huang et al. 2017, table 2).
PARAMETERS = {
    "resnet20": 269_722,
    "resnet18": 11_173_962,
    "vgg16_bn": sum(9 * i * o + 3 * o for i, o in pairwise(_VGG)) + 2 * 513 * 512 + 513 * 10,
    "densenet40_12": 9 * 3 * 16
    + sum(2 * width + 9 * width * 12 for width in _DENSE)
    + sum(2 * width + width * width for width in (160, 304))
    + 2 * 448
    + 449 * 10,
    "fast": _ours(48, 128, 256),
    "tiny": _ours(24, 64, 128),
    # blocks of 4×4 to 192 values, three pairs of 192×192 matrices, mean and maximum to 192 values,
    # then to the classes; each but the last with the two vectors of its normalisation
    "set": 50 * 192 + 3 * (2 * 192 + 2) * 192 + (2 * 192 + 2) * 192 + 193 * 10,
}


def trainable(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", models.names())
def test_parameter_counts_are_the_published_ones(name):
    model = models.build(name, channels=3, classes=10, size=(32, 32))
    assert trainable(model) == PARAMETERS[name]


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize(("channels", "size"), [(1, (32, 32)), (3, (32, 40)), (4, (48, 32))])
def test_any_channels_size_and_class_count(name, channels, size):
    model = models.build(name, channels=channels, classes=7, size=size).eval()
    images = torch.zeros(2, channels, *size, dtype=torch.uint8)
    logits = model(images)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", models.names())
def test_weights_follow_from_the_seed_and_global_state_is_left_alone(name):
    def weights(seed):
        model = models.build(name, channels=3, classes=10, size=(32, 32), seed=seed)
        return torch.cat([p.flatten() for p in model.parameters()])

    before = torch.get_rng_state()
    first = weights(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)


def test_option_a_shortcut_subsamples_and_pads_with_zeros():
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    y = PaddedShortcut(4, 8)(x)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


def test_bad_arguments_are_refused_together():
    with pytest.raises(TrainingError, match="'resnet21'; expected one of resnet20"):
        models.build("resnet21", channels=3, classes=10, size=(32, 32))
    with pytest.raises(TrainingError, match=r"channels is 0.*classes is 1.*width is 2"):
        models.build("resnet20", channels=0, classes=1, size=(32, 2))
    with pytest.raises(TrainingError, match="input"):
        models.build("resnet20", channels=3, classes=10, size=(32, 32), input="cooked")


def test_names_are_known_without_loading_torch():
    code = "import sys, fedenc.models; fedenc.models.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
