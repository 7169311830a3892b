"""What a simulation settles, warns of and refuses before anything is started."""

import json
from typing import Any

import pytest

from fedenc import ciphers
from fedenc.ciphers.registry import cipher_class
from fedenc.data.augment import AUGMENTATIONS
from fedenc.errors import DataError, ScenarioError
from fedenc.scenario import Scenario, load
from simulations import presets
from simulations.experiment import prepare

ONE_KEY = ["encryption.views=2", "encryption.keys=same"]
OWNERS = ["augmentation.domain=plain"]


def scenario(*sets: str) -> Scenario:
    return load(None, ["encryption.seed=1", *sets])


@pytest.mark.parametrize(
    "sets",
    [
        ONE_KEY,
        [*ONE_KEY, *OWNERS, "augmentation.train=flip-all"],
        [*ONE_KEY, *OWNERS, "augmentation.train=none"],
        [*ONE_KEY, *OWNERS, "augmentation.train=crop-flip", "augmentation.shared=true"],
        ["encryption.cipher=transformation", "encryption.views=2"],
    ],
)
def test_views_that_would_not_differ(sets: list[str]) -> None:
    with pytest.raises(ScenarioError, match="all views of an image are the same"):
        prepare(scenario(*sets))


def test_owners_who_augment_at_random_may_send_views_under_one_key() -> None:
    prepare(scenario(*ONE_KEY, *OWNERS, "augmentation.train=crop-flip"))


@pytest.mark.parametrize("cipher", ciphers.names())
def test_by_default_the_server_does_what_the_cipher_tolerates(cipher: str) -> None:
    experiment = prepare(scenario(f"encryption.cipher={cipher}"))
    chosen = experiment.scenario.augmentation.server
    tolerated = cipher_class(cipher).augmentations
    assert chosen is not None
    assert not AUGMENTATIONS[chosen].missing_from(tolerated)
    assert (chosen == "none") is (not tolerated)
    assert experiment.warnings == ()
    assert experiment.provider_view.augmentation.server == chosen
    again = prepare(experiment.scenario)
    assert again.scenario == experiment.scenario, "what is settled stays as it is"


def test_what_a_cipher_does_not_tolerate_runs_with_a_warning() -> None:
    experiment = prepare(scenario("encryption.cipher=le", "augmentation.server=crop-flip"))
    (warning,) = experiment.warnings
    assert "has the server do crop, flip to ciphertexts, but 'le' tolerates nothing" in warning
    assert experiment.scenario.augmentation.server == "crop-flip"
    (warning,) = prepare(
        scenario("encryption.cipher=etc", "augmentation.server=shift-all")
    ).warnings
    assert "shift" in warning
    assert "flip:" in warning
    assert prepare(scenario("encryption.cipher=le", *OWNERS)).warnings == ()


def test_key_policies_that_a_cipher_is_not_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher_class("pixel"), "policies", ("client",))
    assert prepare(scenario()).scenario.encryption.keys == "client"
    experiment = prepare(scenario("encryption.keys=image"))
    assert experiment.scenario.encryption.keys == "image"
    assert experiment.warnings == ("encryption.keys = 'image', but 'pixel' is made for client",)


def test_unknown_names_are_told_with_all_other_problems() -> None:
    sets = [
        "encryption.cipher='rot13'",
        "model.name='resnet21'",
        "data.name='imagenet'",
        "training.recipe='adamw'",
        "augmentation.query='mixup'",
    ]
    words = ("rot13", "resnet21", "imagenet", "adamw", "mixup")
    with pytest.raises(ScenarioError) as invalid:
        presets.resolve("photos", [*sets, "clients.count=0", "clients.typo=1"])
    assert len(invalid.value.problems) == 7
    with pytest.raises(ScenarioError) as valid:
        prepare(scenario(*sets, "server.gpus=1", "encryption.views=2", "encryption.keys=same"))
    for error in (invalid, valid):
        assert all(any(w in p for p in error.value.problems) for w in words), error.value.problems
    assert any("all views" in problem for problem in valid.value.problems)


def test_problems_of_data_and_of_method_are_told_together() -> None:
    with pytest.raises(ScenarioError) as error:
        prepare(
            scenario("clients.count=5000", "encryption.options={rounds=3}", "model.adapter=deep")
        )
    text = " | ".join(error.value.problems)
    assert "5000" in text
    assert "rounds" in text


def test_an_unknown_name_hides_no_other_problem() -> None:
    name, chosen = presets.resolve("photos", ["encryption.cipher=rot13", "clients.count=5000"])
    with pytest.raises(ScenarioError) as error:
        prepare(chosen, name)
    text = " | ".join(error.value.problems)
    assert "rot13" in text
    assert "5000" in text


def test_data_that_cannot_be_read_keeps_its_own_error() -> None:
    with pytest.raises(DataError, match="/no/such/folder"):
        prepare(scenario("data.name=cifar10", "data.root=/no/such/folder"))


def test_the_provider_is_told_no_secret() -> None:
    experiment = prepare(scenario("encryption.seed='a telling seed'"))
    told: dict[str, Any] = json.loads(experiment.provider_view.model_dump_json())
    assert "a telling seed" not in json.dumps(told)
    assert told["cipher"] == "pixel"
    assert "a telling seed" not in repr(experiment.population.participant(0))
