import json

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fedenc import models
from fedenc.errors import TransformationError
from fedenc.training import rng
from fedenc.training.model_files import weights_sha256
from fedenc.training.precision import resolve
from fedenc.training.predict import predict
from fedenc.transformation.bundle import Transformation, build
from fedenc.transformation.measure import Answers, ask, collapse, measure

CPU = torch.device("cpu")


def pictures(count: int = 30):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 3


def transformation(network: torch.nn.Module | None = None, **info) -> Transformation:
    if network is None:
        with rng.seeded(0, "test measure"):
            network = build("unet", {"widths": (4, 8)}).eval()
    facts = {"method": "unet", "size": [16, 16], "classes": ["a", "b", "c"]} | info
    return Transformation("digest", facts, network)


def classifier(seed: int = 0):
    model = models.build("fast", channels=3, classes=3, size=(16, 16), seed=seed)
    model(pictures()[0])
    return model.eval()


class Map(torch.nn.Module):
    """A network by a function, with a parameter to be somewhere."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.function(x)


def test_against_references():
    images, labels = pictures()
    h, psi, foreign = transformation(), classifier(), classifier(1)
    found = measure(h, psi, images, labels, foreign=foreign)
    protected = h.protect(images)

    def accuracy(model, queries):
        return (predict(model, queries, device=CPU).argmax(1) == labels).double().mean().item()

    assert found["plain_accuracy"] == accuracy(psi, images)
    assert found["protected_accuracy"] == accuracy(psi, protected)
    assert found["foreign_accuracy"] == accuracy(foreign, protected)
    assert found["foreign_plain_accuracy"] == accuracy(foreign, images)
    pairs = [
        (a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy())
        for a, b in zip(images, protected, strict=True)
    ]
    uniform = [structural_similarity(a, b, channel_axis=2) for a, b in pairs]
    gaussian = [
        structural_similarity(
            a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in pairs
    ]
    noise = [peak_signal_noise_ratio(a, b) for a, b in pairs]
    assert found["ssim_uniform7"] == pytest.approx(np.mean(uniform), abs=1e-6)
    assert found["ssim_gaussian11"] == pytest.approx(np.mean(gaussian), abs=1e-6)
    assert found["psnr"] == pytest.approx(np.mean(noise))
    outputs = h.transform(images)
    assert found["output_lowest"] == outputs.min().item()
    assert found["output_highest"] == outputs.max().item()
    assert found["images"] == 30
    assert found["precision"] == resolve("auto", CPU)
    values = protected.double()
    deviation = values.std(dim=0, correction=0).mean().item()
    assert found["collapse"]["deviation"] == pytest.approx(deviation)
    json.dumps(found, allow_nan=False)


def test_a_network_that_does_nothing_is_seen_through():
    images, labels = pictures()
    found = measure(transformation(Map(lambda x: x)), classifier(), images, labels)
    assert found["ssim_uniform7"] == found["ssim_gaussian11"] == pytest.approx(1)
    assert found["psnr"] is None  # infinite
    assert found["plain_accuracy"] == found["protected_accuracy"] == found["unrounded_accuracy"]
    assert found["foreign_accuracy"] is None
    assert (found["output_lowest"], found["output_highest"]) == (0, 1)
    assert not found["collapse"]["collapsed"]


def test_unrounded_outputs_are_not_rounded():
    images, labels = pictures()
    seen = []
    psi = classifier()
    network = Map(lambda x: 0.25 * x + 0.001)
    original = psi.input.forward

    def record(x):
        seen.append((x.dtype, x.clone()))
        return original(x)

    psi.input.forward = record
    answers = ask(transformation(network), psi, images, labels)
    (_, plain), (first, rounded), (second, unrounded) = seen
    assert torch.equal(plain, images)
    assert (first, second) == (torch.uint8, torch.float32)
    assert torch.equal(rounded, unrounded.round().to(torch.uint8))
    assert (unrounded.frac() != 0).any()
    assert torch.equal(answers.images, rounded)


def test_a_network_that_forgets_everything_has_collapsed():
    images, labels = pictures()
    psi = classifier()
    found = measure(transformation(Map(lambda x: 0 * x + 0.5)), psi, images, labels)["collapse"]
    assert found["collapsed"]
    assert "they are all the same" in found["reason"]
    assert found["deviation"] == 0
    assert found["most_frequent_share"] == 1


def answers(protected: torch.Tensor, images: torch.Tensor) -> Answers:
    return Answers(protected, protected, protected, None, None, images, 0.0, 1.0)


@pytest.mark.parametrize(
    ("published", "plain", "collapsed"),
    [
        (0.9198, 0.9155, False),  # ResNet-20 on CIFAR-10, alpha 0.05
        (0.6891, 0.9155, False),  # alpha 0.1
        (0.4430, 0.9249, True),  # VGG16, alpha 0.05
        (0.1000, 0.9249, True),  # alpha 0.1
    ],
)
def test_the_papers_results_are_judged_as_one_would(published, plain, collapsed):
    labels = torch.arange(10_000) % 10
    answered = torch.where(torch.arange(10_000) < published * 10_000, labels, (labels + 1) % 10)
    noise = torch.randint(0, 256, (10_000, 3, 2, 2), dtype=torch.uint8)
    found = collapse(answers(answered, noise), labels, plain)
    assert found["collapsed"] is collapsed
    assert (found["reason"] is None) is not collapsed
    assert found["chance"] == 0.1
    assert found["protected_accuracy"] == pytest.approx(published)


def test_a_classifier_that_guesses_is_no_evidence_of_collapse():
    labels = torch.arange(100) % 2
    images, _ = pictures(100)
    assert not collapse(answers(labels * 0, images), labels, 0.5)["collapsed"]


def test_a_gan_is_compared_with_the_classifier_of_plain_images():
    images, labels = pictures()
    psi = classifier()
    info = {"method": "gan", "validation": {"plain_accuracy": 0.99}}
    found = measure(transformation(None, **info), psi, images, labels)
    assert found["collapse"]["plain_accuracy"] == 0.99 != found["plain_accuracy"]


def test_nothing_is_moved_or_changed():
    images, labels = pictures()
    psi, h = classifier().train(), transformation()
    before = weights_sha256(psi), weights_sha256(h.network), images.clone()
    measure(h, psi, images, labels)
    assert (weights_sha256(psi), weights_sha256(h.network)) == before[:2]
    assert torch.equal(images, before[2])
    assert psi.training


def test_labels_that_do_not_fit_are_refused():
    images, labels = pictures()
    for bad in ((images, labels[:-1]), (images[:0], labels[:0])):
        with pytest.raises(TransformationError, match="expected at least one image, and one label"):
            measure(transformation(), classifier(), *bad)
