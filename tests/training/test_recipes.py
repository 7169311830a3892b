import pytest
import tiny
import torch

from fedenc.errors import TrainingError
from fedenc.training.loop import fit
from fedenc.training.recipes import RECIPES, recipe
from fedenc.training.schedule import learning_rate

CPU = torch.device("cpu")


def rates(name: str, at: list[int], epochs: int) -> list[float]:
    """The rate in the first step of each of the epochs ``at``, with ten steps an epoch."""
    return [learning_rate(recipe(name), 10 * epoch, 10 * epochs) for epoch in at]


def test_published_schedules_drop_at_the_published_epochs():
    drops = rates("skk-resnet18", [0, 59, 60, 119, 120, 159, 160, 199], 200)
    assert drops == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])
    drops = rates("skk-densenet", [0, 149, 150, 224, 225, 299], 300)
    assert drops == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    drops = rates("madono", [0, 149, 150, 224, 225, 304], 305)
    assert drops == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (recipe("madono").epochs, recipe("madono").batch_size) == (305, 512)


def test_a_scaled_recipe_is_the_same_schedule_in_less_time():
    whole, tenth = recipe("ito"), recipe("ito", scale=0.1)
    assert (whole.epochs, tenth.epochs) == (200, 20)
    for step in range(0, 2000, 10):
        assert learning_rate(whole, step, 2000) == learning_rate(tenth, step // 10, 200)
    assert recipe("skk-densenet", scale=1e-6).epochs == 1


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_at_a_small_scale(name):
    small = recipe(name, epochs=2, batch_size=16)
    (*_, last) = fit(tiny.network(), tiny.examples(), small, seed=0, device=CPU)
    assert last.done
    assert last.loss < 10


def test_what_does_not_exist_is_refused():
    with pytest.raises(TrainingError, match="'skk'; expected one of skk-resnet18"):
        recipe("skk")
    with pytest.raises(TrainingError, match="scale is 0"):
        recipe("fast", scale=0)
    with pytest.raises(TrainingError, match=r"training\.epoch does not exist"):
        recipe("fast", epoch=3)
    assert recipe("chuman", learning_rate=0.1).learning_rate == 0.1
