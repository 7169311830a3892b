import urllib.error

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision

from fedenc import models
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.transformation import features

WIDTHS = {"0": (3, 64), "2": (64, 64), "5": (64, 128), "7": (128, 128)}


def vgg(seed: int = 0) -> dict[str, torch.Tensor]:
    """The early part of a VGG16 state dict, and a layer that nobody needs."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {"classifier.6.bias": torch.zeros(1000)}
    for number, (inputs, outputs) in WIDTHS.items():
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
        tensors[f"features.{number}.weight"] = weight
        tensors[f"features.{number}.bias"] = torch.randn(outputs, generator=generator)
    return tensors


def classifier(name: str = "resnet20", **keywords) -> Network:
    return models.build(name, channels=3, classes=4, size=(32, 32), **keywords).eval()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vgg.safetensors"
    safetensors.torch.save_file(vgg(), path)
    return path


def test_they_are_what_torchvision_computes_after_its_second_and_fourth_relu(file):
    whole = torchvision.models.vgg16(weights=None).eval()
    whole.load_state_dict(vgg(), strict=False)
    images = torch.rand(2, 3, 32, 32)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for name, layers, shape in (
        ("vgg16-relu1_2", 4, (2, 64, 32, 32)),
        ("vgg16-relu2_2", 9, (2, 128, 16, 16)),
    ):
        phi = features.load(name, classifier(), file)
        found = phi(images)
        assert found.shape == shape
        with torch.no_grad():
            expected = whole.features[:layers]((images - mean) / std)
        assert torch.allclose(found, expected, atol=1e-5)
        assert phi.source.name == name


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_of_torch_save_are_the_same_weights(file, tmp_path, legacy):
    path = tmp_path / "vgg16-397923af.pth"  # torchvision's own is in the older of the two formats
    torch.save(vgg(), path, _use_new_zipfile_serialization=not legacy)
    one, other = (features.load("vgg16-relu2_2", classifier(), p) for p in (file, path))
    assert one.source.sha256 == other.source.sha256
    assert one.source.origin.startswith("file vgg.safetensors, sha256 ")
    assert other.source.origin.startswith("file vgg16-397923af.pth, sha256 ")
    assert str(tmp_path) not in other.source.origin
    assert features.load("vgg16-relu1_2", classifier(), file).source.sha256 != one.source.sha256


@pytest.mark.parametrize("name", [name for name in models.names() if name != "set"])
def test_an_early_layer_of_the_classifier(name):
    psi = classifier(name)
    psi.input.set([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    phi = features.load("classifier", psi)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    seen = []
    count = int(phi.source.origin.split()[2])
    assert phi.source.origin == f"psi, first {count} layers"
    layer = list(psi.body.children())[count - 1]
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        psi(images)
        found = phi(images / 255)
    handle.remove()
    assert torch.allclose(found, seen[0], atol=1e-4)
    assert min(found.shape[2:]) >= 15  # early: at least about half the resolution
    before = found.clone()
    psi.requires_grad_(True)
    with torch.no_grad():
        for p in psi.parameters():
            p.add_(1)
        assert torch.equal(phi(images / 255), before)  # a copy


def test_they_are_frozen_and_stay_in_evaluation_mode(file):
    for phi in (
        features.load("vgg16-relu2_2", classifier(), file),
        features.load("classifier", classifier().train()),
    ):
        phi.train()
        assert not any(module.training for module in phi.modules())
        assert not any(p.requires_grad for p in phi.parameters())
        images = torch.rand(2, 3, 32, 32, requires_grad=True)
        phi(images).sum().backward()
        assert images.grad is not None


def test_a_failing_download_says_what_else_there_is(monkeypatch):
    def fail(self, *arguments, **keywords):
        assert keywords["weights_only"]
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models.VGG16_Weights, "get_state_dict", fail)
    with pytest.raises(TrainingError, match=r'no route to host.*feature_weights.*"classifier"'):
        features.load("vgg16-relu2_2", classifier())


def test_a_download_is_recorded_as_one(monkeypatch):
    monkeypatch.setattr(
        torchvision.models.VGG16_Weights, "get_state_dict", lambda self, **keywords: vgg()
    )
    phi = features.load("vgg16-relu2_2", classifier())
    assert phi.source.origin == "torchvision IMAGENET1K_V1"


class Evil:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_files_that_are_not_vgg16s_weights_are_refused(tmp_path, capsys):
    def refused(path, message):
        with pytest.raises(TrainingError, match=message) as caught:
            features.load("vgg16-relu2_2", classifier(), path)
        assert "\n" not in str(caught.value)
        assert "classifier" in str(caught.value)

    refused(tmp_path / "none.pth", "cannot be read")
    refused(tmp_path / "none.safetensors", "cannot be read")
    path = tmp_path / "vgg.pth"
    path.write_bytes(b"junk")
    refused(path, "not a file of weights alone")
    torch.save({"features.0.weight": Evil()}, path)
    refused(path, "not a file of weights alone")
    assert capsys.readouterr().out == ""
    torch.save([1, 2], path)
    refused(path, "holds a list; expected tensors by name")
    torch.save(dict.fromkeys(vgg(), 1), path)
    refused(path, "does not hold the weights of VGG16")
    whole = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=True)
    torch.save({f"features.{n}": t for n, t in whole.state_dict().items()}, path)
    refused(path, "without batch normalisation")
    path = tmp_path / "vgg.safetensors"
    safetensors.torch.save_file(vgg(), path)
    path.write_bytes(path.read_bytes()[:-9])
    refused(path, "not a file of weights alone")
    broken = vgg() | {"features.5.weight": torch.zeros(128, 64, 1, 1)}
    safetensors.torch.save_file(broken, path)
    refused(path, "does not hold the weights of VGG16")


def test_a_classifier_without_such_a_layer_is_refused():
    with pytest.raises(TrainingError, match="input invariant and adapter None has none"):
        features.load("classifier", classifier(input="invariant"))
    with pytest.raises(TrainingError, match="adapter conv1x1"):
        features.load("classifier", classifier(adapter="conv1x1"))
    with pytest.raises(TrainingError, match="features is 'vgg19'; expected one of"):
        features.load("vgg19", classifier())


def test_distances_are_in_the_units_of_the_layer(file):
    """Against the mean squared error written out."""
    phi = features.load("vgg16-relu1_2", classifier(), file)
    one, other = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    found = F.mse_loss(phi(one), phi(other))
    expected = (phi(one) - phi(other)).square().sum() / (2 * 64 * 8 * 8)
    assert found == pytest.approx(expected.item(), rel=1e-5)
