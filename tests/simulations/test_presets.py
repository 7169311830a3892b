"""Every preset is a scenario that can be run, here on the embedded data."""

from pathlib import Path

import pytest

from clients.simulated import Population
from fedenc import ciphers
from fedenc.errors import ScenarioError
from simulations import presets
from simulations.experiment import prepare

CIFAR = Path(__file__).parents[3] / "shared/data/cifar10"
FEW = ["data.name='photos'", "clients.count=4", "clients.images=20", "server.gpus='auto'"]


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_fits_together(name: str) -> None:
    _, scenario = presets.resolve(name, [*FEW, "encryption.seed=1"])
    experiment = prepare(scenario, name)
    assert experiment.warnings == ()
    if scenario.awaits_bundle:
        return  # the third party has trained no network yet
    told = experiment.provider_view
    shard = experiment.population.participant(3).upload()
    assert shard.manifest.cipher == told.cipher == scenario.encryption.cipher
    assert dict(shard.manifest.params) == told.cipher_params
    assert shard.manifest.shape == told.shape
    assert len(shard.images) == 20 * told.views


PAPERS = [name for name in presets.names() if name[-4:].isdigit() or name.startswith("skk2019")]


@pytest.mark.skipif(not CIFAR.exists(), reason="CIFAR-10 is not there")
@pytest.mark.parametrize("keys", ["same", None])
@pytest.mark.parametrize("name", PAPERS)
def test_papers_ask_every_test_image_once_under_every_condition(
    name: str, keys: str | None
) -> None:
    sets = [f"data.root='{CIFAR}'", "encryption.seed=1"]
    _, scenario = presets.resolve(name, [*sets, *([f"encryption.keys='{keys}'"] if keys else [])])
    people = Population(scenario)
    everybody = range(scenario.clients.total)
    asked = [people.distinct(condition, everybody) for condition in scenario.conditions()]
    assert asked == [10_000] * len(asked)
    assert scenario.inference.images * len(everybody) == 10_000


def test_a_name_that_is_none_lists_those_there_are() -> None:
    with pytest.raises(ScenarioError, match=r"photos.*end in \.toml"):
        presets.resolve("nothing", ())


def test_every_preset_says_in_a_line_what_it_runs() -> None:
    for name in presets.names():
        assert 20 < len(presets.describe(name)) < 130


@pytest.mark.parametrize("keys", ["same", "image"])
@pytest.mark.parametrize("cipher", ciphers.names())
def test_every_cipher_fits_the_default_scenario(cipher: str, keys: str) -> None:
    sets = [f"encryption.cipher='{cipher}'", f"encryption.keys='{keys}'", "encryption.seed=1"]
    experiment = prepare(presets.resolve("photos", sets)[1])
    left_out = "model.compare = 'invariant' is left out"
    assert all(w.startswith(left_out) for w in experiment.warnings)
    told = experiment.provider_view
    owner = experiment.population.participant(0)
    asked = owner.queries(told.conditions)
    assert {shard.manifest.shape for shard in (owner.upload(), *asked)} == {told.shape}
    assert [shard.manifest.purpose for shard in asked] == list(told.conditions)
