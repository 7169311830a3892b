"""Members are found where a model remembers them and can be asked about them, and nowhere else."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trained import OVERFITTING, OWNERS, small, trained, uploaded
from victims import attacked

from fedenc import ciphers
from fedenc.attacks import membership, roc, shadow
from fedenc.attacks.base import Knowledge, Labelled, Means, Method
from fedenc.attacks.membership import ChosenMembership, Membership, NetworkMembership
from fedenc.attacks.registry import attack_class
from fedenc.attacks.target import Target
from fedenc.errors import AttackError
from fedenc.keys import POLICIES, Policy
from fedenc.protection import Network, Plain
from fedenc.training.training_set import TrainingSet
from fedenc.transformation.bundle import Transformation

FEW = {"references": 2, "copies": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where reference models stay for all tests of this file."""
    return tmp_path_factory.mktemp("references")


@pytest.fixture(scope="module")
def plain() -> Target:
    return trained(uploaded(dict.fromkeys(range(OWNERS), Plain())))


@pytest.fixture(scope="module")
def same() -> Target:
    return trained(small("pixel", "same"))


def found(attack: Membership, target: Target, folder: Path) -> roc.Roc:
    scores = run(attack, target, folder / f"{target.method.name}-{target.method.policy}")
    assert target.trained_on is not None
    return roc.measure(scores, target.trained_on)


def run(attack: Membership, target: Target, folder: Path | None, seed: int = 0) -> Tensor:
    findings = attack.run(target.observe(attack.knowledge), Means(seed, folder=folder))
    scores = findings.members
    assert scores is not None
    assert scores.dtype == torch.float64
    assert scores.shape == (100,)
    return scores


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object, **__: object) -> None:
        raise AssertionError("it trains again")

    monkeypatch.setattr(shadow, "fit", fit)


@pytest.mark.parametrize("method", membership.METHODS)
def test_an_overfitted_model_gives_its_members_away(
    method: str, plain: Target, folder: Path
) -> None:
    assert found(Membership(method=method, **FEW), plain, folder).auc.low > 0.55


def test_a_model_of_other_images_tells_nothing(plain: Target, folder: Path) -> None:
    other = trained(small("none", "same", count=52))
    asked = dataclasses.replace(plain, model=other.model)
    for method in membership.METHODS:
        chance = found(Membership(method=method, **FEW), asked, folder).auc
        assert chance.low < 0.5 < chance.high


def test_a_shared_key_hides_members_until_one_can_encrypt_with_it(
    same: Target, folder: Path
) -> None:
    asked_plainly = found(Membership(queries="plain", **FEW), same, folder).auc
    under_other_keys = found(Membership(**FEW), same, folder).auc
    under_its_key = found(ChosenMembership(**FEW), same, folder).auc
    assert asked_plainly.low < 0.5 < asked_plainly.high
    assert under_its_key.low > max(0.6, under_other_keys.value, asked_plainly.value)


def test_a_shared_network_hides_no_members(folder: Path) -> None:
    negate = torch.nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        negate.weight.copy_(-torch.eye(3)[:, :, None, None])
        negate.bias.fill_(1)
    bundle = Transformation("digest", {"method": "unet", "size": [16, 16]}, negate)
    target = trained(uploaded(dict.fromkeys(range(OWNERS), Network(bundle))))
    assert torch.equal(target.uploads.images, 255 - target.plain)
    assert found(NetworkMembership(**FEW), target, folder).auc.low > 0.6


def test_both_ways_of_asking_where_keys_are_independent(folder: Path) -> None:
    target = trained(small("pixel", "image"), input="invariant")
    encrypted = run(Membership(**FEW), target, folder / "invariant")
    asked_plainly = run(Membership(queries="plain", **FEW), target, folder / "invariant")
    assert torch.allclose(encrypted, asked_plainly)  # to this input they are the same images
    assert target.trained_on is not None
    assert roc.measure(encrypted, target.trained_on).auc.low > 0.5


def test_scores_depend_on_what_is_declared_and_nothing_else(plain: Target, folder: Path) -> None:
    attack = Membership(**FEW)
    blind = dataclasses.replace(
        plain,
        uploads=dataclasses.replace(plain.uploads, images=torch.zeros_like(plain.uploads.images)),
        plain=torch.zeros_like(plain.plain),
        labels=torch.zeros_like(plain.labels),
        shown=None,
        trained_on=None,
    )
    own = folder / "none-None"
    assert torch.equal(run(attack, blind, own), run(attack, plain, own))


def test_resuming_does_not_train_again_and_gives_equal_bytes(
    same: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dataclasses.replace(
        same,
        model=dataclasses.replace(same.model, config=dataclasses.replace(OVERFITTING, epochs=1)),
    )
    attack = Membership(**FEW)
    first = run(attack, short, tmp_path)
    with monkeypatch.context() as patch:
        forbid_training(patch)
        assert torch.equal(run(attack, short, tmp_path), first)
        with pytest.raises(AssertionError, match="trains again"):
            run(attack, short, tmp_path, seed=1)
    damaged = tmp_path / "reference-2.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert torch.equal(run(attack, short, tmp_path), first)


def test_it_reports_how_far_it_is(plain: Target, folder: Path) -> None:
    told: list[float] = []
    means = Means(folder=folder / "none-None", report=lambda done, text: told.append(done))
    attack = Membership(**FEW)
    attack.run(plain.observe(attack.knowledge), means)
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"candidates": t.candidates[:0]}, "no candidates"),
        (lambda t: {"public": Labelled(t.public.images, t.public.labels, 9)}, "9 classes.* 8"),
        (
            lambda t: {"public": Labelled(t.public.images[:31], t.public.labels[:31], 8)},
            "31 public images.* at least 32",
        ),
    ],
)
def test_too_little_to_work_on(
    change: Callable[[Target], dict[str, object]], message: str, plain: Target
) -> None:
    with pytest.raises(AttackError, match=message):
        attacked(Membership(), dataclasses.replace(plain, **change(plain)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "loss"}, "method is 'loss'; expected one of rmia, lira"),
        ({"queries": "none"}, "expected one of encrypted, plain"),
        ({"references": 1}, "references is 1; expected at least 2"),
        ({"copies": 0}, "copies is 0; expected at least 1"),
    ],
)
def test_parameters_it_cannot_take(params: dict[str, str | int], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        Membership(**params)  # type: ignore[arg-type]


def test_what_each_variant_is_for() -> None:
    shape = 3, 32, 32
    pixel = {p: Method("pixel", ciphers.make("pixel"), p, shape) for p in POLICIES}
    gray = Method("etc-gray", ciphers.make("etc-gray"), "image", shape)
    network = Method("transformation", None, None, shape)
    unprotected = Method("none", None, None, shape)
    for method in (*pixel.values(), gray, unprotected):
        assert Membership().unsuitable(method) is None
        assert NetworkMembership().unsuitable(method) is not None
    assert "another shape" in str(Membership(queries="plain").unsuitable(gray))
    assert "shared network" in str(Membership().unsuitable(network))
    assert NetworkMembership().unsuitable(network) is None
    assert [ChosenMembership().unsuitable(pixel[p]) is None for p in POLICIES] == [
        p == "same" for p in POLICIES
    ]
    for name in ("membership", "membership-chosen", "membership-network"):
        assert attack_class(name).name == name


def test_reference_models_train_on_as_many_images_and_views(
    plain: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets: list[TrainingSet] = []

    def note(model: object, training_set: TrainingSet, *_: object) -> None:
        sets.append(training_set)

    monkeypatch.setattr(shadow, "_trained", note)
    model, public = plain.model, plain.public
    assert public is not None
    assert model is not None
    two_views = dataclasses.replace(model, images=25, views=2)

    def number_them(images: Tensor, number: int) -> Tensor:
        return images ^ number

    made = shadow.train_references(two_views, public, number_them, 2, Means())
    rows = [one.rows for one in made]
    assert [len(r) for r in rows] == [25, 25]
    assert not torch.equal(*rows)
    for number, training_set in enumerate(sets):
        assert training_set.views == 2
        for view in range(2):
            images = training_set.images[view::2] ^ number
            assert torch.equal(images, public.images[rows[number]])
            assert torch.equal(training_set.labels[view::2], public.labels[rows[number]])
    few = Labelled(public.images[:40], public.labels[:40], public.classes)
    made = shadow.train_references(model, few, number_them, 1, Means())
    assert [len(one.rows) for one in made] == [20]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_attackers_own_keys_are_shared_as_the_owners_are(policy: Policy) -> None:
    """Seen in the ciphertexts of equal images: equal keys give equal ones."""
    method = Method("pixel", ciphers.make("pixel"), policy, (3, 8, 8))
    images = torch.full((6, 3, 8, 8), 10, dtype=torch.uint8)
    seen = shadow.own_keys(method, images, 3, 0, "train")
    different = len({one.numpy().tobytes() for one in seen})
    assert different == {"same": 1, "client": 3, "image": 6}[policy]
    assert torch.equal(shadow.own_keys(method, images, 3, 0, "train"), seen)
    for seed, purpose in ((0, "query"), (1, "train")):
        assert not torch.equal(shadow.own_keys(method, images, 3, seed, purpose), seen)


def test_without_keys_images_stay_as_they_are() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert shadow.own_keys(Method("none", None, None, (3, 8, 8)), images, 1, 0) is images


def test_it_declares_all_it_uses() -> None:
    assert Membership.knowledge == {
        Knowledge.PUBLIC,
        Knowledge.CANDIDATES,
        Knowledge.CANDIDATE_LABELS,
        Knowledge.MODEL,
    }
    assert ChosenMembership.knowledge - Membership.knowledge == {Knowledge.CHOSEN}
    assert NetworkMembership.knowledge - Membership.knowledge == {Knowledge.NETWORK}
