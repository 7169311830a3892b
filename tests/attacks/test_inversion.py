"""Pictures that a model takes for a class, as it says itself."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from trained import CPU, small, trained
from victims import attacked

from fedenc import ciphers
from fedenc.attacks.base import Knowledge, Means, Method
from fedenc.attacks.inversion import Inversion
from fedenc.attacks.target import Target
from fedenc.errors import AttackError
from fedenc.models.inputs import fold_sorted
from fedenc.training.predict import predict


@pytest.fixture(scope="module")
def plain() -> Target:
    return trained(small("none", "same", count=100))


@pytest.fixture(scope="module")
def folding() -> Target:
    return trained(small("pixel", "image", count=100), input="invariant")


def constant(target: Target) -> Tensor:
    """The mean colour of the uploads."""
    colour = target.uploads.images.float().mean((0, 2, 3), keepdim=True)
    return colour.round().to(torch.uint8).expand_as(target.plain)


def pictures(attack: Inversion, target: Target, seed: int = 0) -> Tensor:
    found = attacked(attack, target, seed).images
    assert found is not None
    assert found.dtype == torch.uint8
    assert found.shape == target.plain.shape
    return found


def losses(target: Target, images: Tensor) -> Tensor:
    """What the model loses on images, each as of its upload's class."""
    assert target.model is not None
    scores = predict(target.model.network, images, device=CPU, precision="fp32")
    return F.nll_loss(scores.log(), target.labels, reduction="none")


def test_the_model_finds_the_class_in_the_picture(plain: Target) -> None:
    """More than in what it was trained on, and far more than in an image of one colour."""
    found = losses(plain, pictures(Inversion(steps=60), plain))
    assert (-found).exp().min() > 0.5
    assert found.mean() < losses(plain, plain.uploads.images).mean()
    assert found.mean() < 0.1 * losses(plain, constant(plain)).mean()


def test_through_an_input_that_folds(folding: Target) -> None:
    images = pictures(Inversion(steps=60), folding)
    found = losses(folding, images)
    assert (-found).exp().mean() > 0.5
    assert found.mean() < 0.2 * losses(folding, constant(folding)).mean()
    assert torch.equal(fold_sorted(images), images)


def test_one_picture_a_class(plain: Target) -> None:
    found = pictures(Inversion(steps=5), plain)
    for label in plain.labels.unique():
        of_class = found[plain.labels == label]
        assert torch.equal(of_class, of_class[:1].expand_as(of_class))
    distinct = {one.numpy().tobytes() for one in found}
    assert len(distinct) == len(plain.labels.unique())


def test_it_is_a_function_of_the_seed_and_leaves_the_model_as_it_was(plain: Target) -> None:
    assert plain.model is not None
    before = {n: t.clone() for n, t in plain.model.network.state_dict().items()}
    attack = Inversion(steps=20)
    assert torch.equal(pictures(attack, plain), pictures(attack, plain))
    assert not torch.equal(pictures(attack, plain), pictures(attack, plain, seed=1))
    after = plain.model.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(p.requires_grad for p in plain.model.network.parameters())
    assert not any(m._forward_hooks for m in plain.model.network.modules())


def test_priors_do_what_they_say(plain: Target) -> None:
    rough = pictures(Inversion(steps=60, smoothness=0, statistics=0), plain)
    smooth = pictures(Inversion(steps=60, smoothness=30, statistics=0), plain)

    def variation(images: Tensor) -> float:
        return (images[..., 1:].float() - images[..., :-1].float()).abs().mean().item()

    assert variation(smooth) < 0.7 * variation(rough)


def test_it_is_told_nothing_but_labels_and_model(plain: Target) -> None:
    assert Inversion.knowledge == {Knowledge.MODEL, Knowledge.LABELS}
    blind = dataclasses.replace(
        plain,
        uploads=dataclasses.replace(plain.uploads, images=torch.zeros_like(plain.uploads.images)),
        plain=torch.zeros_like(plain.plain),
    )
    attack = Inversion(steps=20)
    assert torch.equal(pictures(attack, blind), pictures(attack, plain))


def test_it_reports_how_far_it_is(plain: Target) -> None:
    told: list[float] = []
    attack = Inversion(steps=50)
    means = Means(report=lambda done, text: told.append(done))
    attack.run(plain.observe(attack.knowledge), means)
    assert told == [0.4, 0.8, 1]


def test_what_it_is_for() -> None:
    shape = 3, 32, 32
    gray = Method("etc-gray", ciphers.make("etc-gray"), "image", shape)
    assert "another shape" in str(Inversion().unsuitable(gray))
    for name in ("pixel", "le", "scramble"):
        assert Inversion().unsuitable(Method(name, ciphers.make(name), "same", shape)) is None
    assert Inversion().unsuitable(Method("transformation", None, None, shape)) is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"rate": 0.0}, "rate is 0.0; expected a positive number"),
        ({"smoothness": -1.0}, "smoothness is -1.0; expected 0 or more"),
        ({"statistics": float("inf")}, "statistics is inf; expected 0 or more"),
    ],
)
def test_parameters_it_cannot_take(params: dict[str, float], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        Inversion(**params)  # type: ignore[arg-type]
