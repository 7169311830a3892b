"""What colluding owners' keys open."""

import pytest
import torch
from test_known_pairs import CIPHERS, decrypted
from victims import attacked, victims

from fedenc import ciphers
from fedenc.attacks.base import Knowledge, Means, Method, Observation
from fedenc.attacks.colluders import Colluders
from fedenc.attacks.observe import Observe
from fedenc.errors import AttackError
from fedenc.keys import Policy


@pytest.mark.parametrize(("cipher", "params"), CIPHERS, ids=str)
def test_one_of_all_who_share_a_key_opens_everything(
    cipher: str, params: dict[str, bool | int | str]
) -> None:
    target = victims(cipher, "same", 24, **params)
    found = attacked(Colluders(), target)
    assert found.images is not None
    assert torch.equal(found.images, decrypted(target))
    assert found.facts == {"colluders": 1, "opened": 1}


@pytest.mark.parametrize(("cipher", "params"), CIPHERS, ids=str)
@pytest.mark.parametrize("policy", ["client", "image"])
def test_otherwise_they_open_nothing_but_their_own(
    cipher: str, params: dict[str, bool | int | str], policy: Policy
) -> None:
    target = victims(cipher, policy, 24, **params)
    found, seen = attacked(Colluders(), target), attacked(Observe(), target)
    hidden = target.hidden([Knowledge.COLLUDERS])
    assert found.images is not None
    assert seen.images is not None
    assert torch.equal(found.images[hidden], seen.images[hidden])
    assert found.facts["opened"] == 0
    own = torch.isin(target.uploads.owners, torch.tensor(target.colluding))
    assert torch.equal(found.images[own], decrypted(target)[own])


def test_bad_input() -> None:
    assert Colluders().unsuitable(Method("none", ciphers.make("none"), "same", (3, 8, 8)))
    assert Colluders().unsuitable(Method("transformation", None, None, (3, 8, 8)))
    target = victims("pixel", "same", 12)
    nobody = Observation(target.method, target.uploads, {Knowledge.COLLUDERS: {}})
    with pytest.raises(AttackError, match="no owner colludes"):
        Colluders().run(nobody, Means())
