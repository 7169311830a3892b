"""What a simulation refuses before anything is started."""

import pytest

from fedenc.errors import ScenarioError
from fedenc.scenario import load
from simulations.view import check

ONE_KEY = ["encryption.views=2", "encryption.keys=same", "encryption.seed=1"]
OWNERS = ["augmentation.domain=plain"]


@pytest.mark.parametrize(
    "sets",
    [
        ONE_KEY,
        [*ONE_KEY, *OWNERS, "augmentation.train=flip-all"],
        [*ONE_KEY, *OWNERS, "augmentation.train=none"],
        ["encryption.cipher=transformation", "encryption.views=2", "encryption.seed=1"],
    ],
)
def test_views_that_would_not_differ(sets: list[str]) -> None:
    with pytest.raises(ScenarioError, match="all views of an image are the same"):
        check(load(None, sets))


def test_owners_who_augment_at_random_may_send_views_under_one_key() -> None:
    check(load(None, [*ONE_KEY, *OWNERS, "augmentation.train=crop-flip"]))
