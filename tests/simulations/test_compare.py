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
        (["model.compare=['raw']"], "twice"),
        (["model.compare=['invariant']", "encryption.cipher=le"], "model.input = 'invariant'"),
        (["model.compare=['invariant-np']"], "colours are shuffled too"),
        (["model.compare=['nothing']"], "nothing"),
    ],
)
def test_stages_that_do_not_fit(sets: list[str], word: str) -> None:
    with pytest.raises(ScenarioError) as error:
        prepare(scenario(*sets))
    assert word in str(error.value)


def test_the_provider_is_told_of_them() -> None:
    told: Any = prepare(scenario("model.compare=['invariant']")).provider_view
    assert told.model.compare == ("invariant",)
