"""The simulated population: every participant a function of the scenario, and nothing shared."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.faults import assign
from clients.simulated import Population
from fedenc.data.dataset import Dataset, Split
from fedenc.protection import Plain
from fedenc.scenario import Scenario, parse

TRAIN, TEST = 300, 60


def dataset() -> Dataset:
    """Images that name themselves: the first two bytes are the index, the third the split."""

    def split(count: int, mark: int) -> Split:
        images = np.zeros((count, 3, 4, 4), np.uint8)
        index = np.arange(count)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = index % 256, index // 256
        images[:, 0, 0, 2] = mark
        return Split(images, index % 5)

    return Dataset("numbers", split(TRAIN, 1), split(TEST, 2), tuple("abcde"))


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.simulated.load", lambda *args, **kwargs: dataset())


def scenario(**sections: Any) -> Scenario:
    encryption = {"seed": 5} | sections.pop("encryption", {})
    clients = {"count": 12, "query_only": 3} | sections.pop("clients", {})
    return parse({"encryption": encryption, "clients": clients} | sections)


def numbers_of(images: Any) -> list[int]:
    return [int(x[0, 0, 0]) + 256 * int(x[0, 0, 1]) for x in images]


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_partitions_are_disjoint_and_true(partition: str) -> None:
    people = Population(scenario(clients={"partition": partition, "alpha": 0.3}))
    owned = [people.participant(i).train for i in range(12)]
    indices = [n for t in owned for n in numbers_of(t.images)]
    assert len(set(indices)) == len(indices) == TRAIN
    assert all((t.images[:, 0, 0, 2] == 1).all() for t in owned)
    for t in owned:
        assert t.labels.tolist() == [n % 5 for n in numbers_of(t.images)]
    assert all(len(people.participant(i).train.labels) == 0 for i in range(12, 15))


def test_a_participant_depends_on_nothing_but_scenario_and_number() -> None:
    forward, backward = Population(scenario()), Population(scenario(clients={"per_node": 4}))
    digests = [forward.participant(i).upload().manifest.digest for i in range(12)]
    again = [backward.participant(i).upload().manifest.digest for i in reversed(range(12))]
    assert digests == again[::-1]
    assert len(set(digests)) == 12


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 9), st.integers(1, 50))
def test_every_participant_is_hosted_once(count: int, outsiders: int, per_node: int) -> None:
    s = scenario(clients={"count": count, "query_only": outsiders, "per_node": per_node})
    people = Population(s)
    hosted = [i for node in range(s.clients.nodes) for i in people.hosted_by(node)]
    assert hosted == list(range(count + outsiders))
    assert all(1 <= len(people.hosted_by(n)) <= per_node for n in range(s.clients.nodes))
    assert people.hosted_by(s.clients.nodes) == ()


@pytest.mark.parametrize("keys", ["same", "client", "image"])
def test_who_shares_a_key(keys: str) -> None:
    people = Population(scenario(encryption={"keys": keys}))
    prints = {people.participant(i).ring.fingerprint for i in range(15)}
    assert len(prints) == (1 if keys == "same" else 15)
    other = Population(scenario(encryption={"keys": keys, "seed": 6}))
    assert other.participant(0).ring.fingerprint not in prints


@pytest.mark.parametrize("keys", ["same", "client"])
@pytest.mark.parametrize("paired", [True, False])
def test_no_image_is_asked_under_the_training_key_and_plain_by_anybody(
    keys: str, paired: bool
) -> None:
    """Over all participants together, more of them than fit side by side into the test images."""
    s = scenario(
        clients={"count": 30}, encryption={"keys": keys}, inference={"images": 7, "paired": paired}
    )
    people = Population(s)
    asked: dict[str, set[int]] = {"plain": set(), "encrypted": set(), "same-key": set()}
    for i in range(33):
        for condition, held in people.participant(i).held_out.items():
            assert (held.images[:, 0, 0, 2] == 2).all()
            assert held.labels.tolist() == [n % 5 for n in numbers_of(held.images)]
            assert len(set(numbers_of(held.images))) == 7
            asked[condition] |= set(numbers_of(held.images))
    assert not asked["plain"] & asked["same-key"]
    assert not asked["encrypted"] & asked["same-key"]
    assert bool(asked["plain"] & asked["encrypted"]) is paired
    assert all(asked.values())


def test_every_condition_may_have_all_test_images() -> None:
    """As in papers, although a provider could pair them."""
    s = scenario(
        clients={"query_only": 0},
        encryption={"keys": "same"},
        inference={"images": 5, "disjoint": False},
    )
    people = Population(s)
    for condition in ("plain", "encrypted", "same-key"):
        asked = [
            n
            for i in range(12)
            for n in numbers_of(people.participant(i).held_out[condition].images)
        ]
        assert sorted(asked) == list(range(TEST))


@pytest.mark.parametrize(("images", "distinct"), [(2, 24), (5, 30), (7, 30)])
def test_how_many_different_images_are_asked(images: int, distinct: int) -> None:
    people = Population(scenario(encryption={"keys": "same"}, inference={"images": images}))
    members, kinds = range(12), ("plain", "encrypted", "same-key")
    assert [people.distinct(kind, members) for kind in kinds] == [distinct] * 3
    assert people.distinct("plain", [3]) == images
    assert people.distinct("same-key", [12]) == 0, "outsiders have no key of training images"
    assert people.distinct("plain", []) == 0


def test_pairs_are_the_same_objects_only_where_declared() -> None:
    assert Population(scenario()).participant(0).paired
    unpaired = scenario(inference={"paired": False})
    assert not Population(unpaired).participant(0).paired


def test_more_queries_than_images_are_as_many_as_there_are() -> None:
    people = Population(scenario(inference={"images": 1000}))
    held = people.participant(0).held_out["plain"]
    assert sorted(numbers_of(held.images)) == list(range(TEST))


@settings(deadline=None, max_examples=30)
@given(total=st.integers(1, 80), images=st.integers(1, 6))
def test_a_cap_on_queries_is_spread_evenly(total: int, images: int) -> None:
    free = Population(scenario(inference={"images": images}))
    capped = Population(scenario(inference={"images": images, "total": total}))
    counts = [
        len(p.held_out["plain"].labels) if "plain" in p.held_out else 0
        for p in map(capped.participant, range(15))
    ]
    assert sum(counts) == min(total, 15 * images)
    assert max(counts) - min(counts) <= 1
    asked = [
        image.tobytes()
        for p in map(capped.participant, range(15))
        if "plain" in p.held_out
        for image in p.held_out["plain"].images
    ]
    assert len(set(asked)) == min(len(asked), TEST), "none twice, unless all are"
    if total >= 15 * images:
        for i in range(15):
            one, other = capped.participant(i), free.participant(i)
            for condition, held in one.held_out.items():
                np.testing.assert_array_equal(held.images, other.held_out[condition].images)


def test_plain_participants() -> None:
    s = scenario(clients={"plain_fraction": 0.25}, encryption={"keys": "client"})
    people = Population(s)
    plain = [i for i in range(12) if isinstance(people.participant(i).protection, Plain)]
    assert len(plain) == 3
    for i in range(15):
        owner = people.participant(i)
        assert ("same-key" in owner.held_out) is (i < 12 and i not in plain)
    assert people.participant(plain[0]).upload().manifest.cipher == "none"


def test_shuffled_labels_are_the_same_labels_elsewhere() -> None:
    people = Population(scenario(data={"shuffle_labels": True}))
    owned = [people.participant(i).train for i in range(12)]
    labels = np.concatenate([t.labels for t in owned])
    true = np.concatenate([np.array(numbers_of(t.images)) % 5 for t in owned])
    assert np.bincount(labels).tolist() == np.bincount(true).tolist()
    assert 0.05 < (labels == true).mean() < 0.4
    honest = Population(scenario()).participant(0)
    np.testing.assert_array_equal(people.participant(0).train.images, honest.train.images)


def test_augmentation_only_in_its_domain() -> None:
    def copies(domain: str) -> int:
        s = scenario(augmentation={"domain": domain, "train": "flip-all"})
        return Population(s).participant(0).augmentation.copies

    assert (copies("plain"), copies("encrypted"), copies("none")) == (2, 1, 1)


def test_keys_need_a_settled_seed() -> None:
    with pytest.raises(ValueError, match="settle"):
        Population(parse({"clients": {"count": 3}})).participant(0)


FAULTS = {"raise": 1, "die": 2, "silent": 1, "garble": 2, "wrong_shape": 1, "duplicate": 1}


def test_faults_strike_as_many_as_asked_by_seed() -> None:
    s = scenario(faults=FAULTS | {"transient": True}, server={"deadline": 3.0})
    struck = assign(s)
    assert sorted(f.kind for f in struck.values()) == sorted(
        kind for kind, n in FAULTS.items() for _ in range(n)
    )
    assert set(struck) <= set(range(12))
    assert struck == assign(s)
    assert struck != assign(scenario(faults=FAULTS | {"transient": True}, seed=1))
    assert all(f.deadline == 3.0 and f.transient for f in struck.values())


def test_everybody_may_be_faulty() -> None:
    assert set(assign(scenario(faults={"die": 12}))) == set(range(12))
