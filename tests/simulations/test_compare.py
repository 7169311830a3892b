"""Further input stages on the same uploads: what a scenario may name, and what is written down."""

from typing import Any

import pytest

from fedenc.errors import ScenarioError
from fedenc.scenario import Scenario, load
from simulations.experiment import prepare


def scenario(*sets: str) -> Scenario:
    return load(None, ["encryption.seed=1", *sets])


def test_a_model_for_each_input_stage_the_scenarios_own_first() -> None:
    model = scenario("model.compare=['invariant']", "model.name=fast").model
    assert [(m.name, m.input, m.compare) for m in model.variants()] == [
        ("fast", "raw", ()),
        ("fast", "invariant", ()),
    ]
    assert len(scenario().model.variants()) == 1


@pytest.mark.parametrize(
    ("sets", "word"),
    [
        (
            ["model.compare=['invariant']", "encryption.cipher=logistic-rc4"],
            "'invariant' is left out",
        ),
        (["model.compare=['invariant-np']"], "'invariant-np' is left out"),
    ],
)
def test_stages_that_do_not_suit_the_cipher_are_left_out_and_named(
    sets: list[str], word: str
) -> None:
    experiment = prepare(scenario(*sets))
    (warning,) = experiment.warnings
    assert word in warning
    assert experiment.scenario.model.compare == ()


def test_stages_that_do_not_exist_or_are_there_already() -> None:
    with pytest.raises(ScenarioError, match="nothing"):
        prepare(scenario("model.compare=['nothing']"))
    twice = prepare(scenario("model.input=invariant", "model.compare=['invariant', 'raw']"))
    assert twice.scenario.model.compare == ("raw",)
    assert twice.warnings == ()


def test_the_provider_is_told_of_them() -> None:
    told: Any = prepare(scenario("model.compare=['invariant']")).provider_view
    assert told.model.compare == ("invariant",)
