"""What an attacker gets, and what not."""

import pytest
import torch
from victims import victims

from fedenc.attacks.base import Knowledge
from fedenc.errors import AttackError
from fedenc.keys import POLICIES, Policy


@pytest.mark.parametrize("policy", POLICIES)
def test_groups_share_a_key_and_the_key_is_the_true_one(policy: Policy) -> None:
    target = victims("pixel", policy, count=24)
    groups = list(target.observe().groups())
    assert len(groups) == {"same": 1, "client": 4, "image": 24}[policy]
    assert torch.cat(groups).sort().values.tolist() == list(range(24))
    cipher = target.method.cipher
    assert cipher is not None
    for rows, key in zip(groups, target.key, strict=True):
        assert torch.equal(cipher.apply(target.plain[rows], key), target.uploads.images[rows])


@pytest.mark.parametrize("granted", Knowledge)
def test_what_was_not_declared_is_refused(granted: Knowledge) -> None:
    target = victims("pixel", "same", count=24)
    attributes = {
        Knowledge.LABELS: "labels",
        Knowledge.PUBLIC: "public",
        Knowledge.PAIRS: "pairs",
        Knowledge.CHOSEN: "oracle",
        Knowledge.COLOURS: "colours",
        Knowledge.CANDIDATES: "candidates",
        Knowledge.CANDIDATE_LABELS: "candidate_labels",
        Knowledge.COLLUDERS: "rings",
        Knowledge.NETWORK: "network",
        Knowledge.MODEL: "model",
    }
    available = not target.lacking([granted])
    seen = target.observe([granted] if available else [])
    for knowledge, attribute in attributes.items():
        if available and knowledge == granted:
            assert getattr(seen, attribute) is not None
        else:
            with pytest.raises(AttackError, match=knowledge.value):
                getattr(seen, attribute)


def test_known_and_colluding_rows_do_not_count() -> None:
    target = victims("pixel", "client", count=40)
    pairs = target.observe([Knowledge.PAIRS]).pairs
    assert torch.equal(pairs.plain, target.plain[pairs.rows])
    hidden = target.hidden([Knowledge.PAIRS])
    assert sorted([*hidden.tolist(), *pairs.rows.tolist()]) == list(range(40))
    rings = target.observe([Knowledge.COLLUDERS]).rings
    assert len(rings) == 1
    owners = target.uploads.owners[target.hidden([Knowledge.COLLUDERS])]
    assert not set(owners.tolist()) & rings.keys()
