"""Participants without keys: what the shared network protects, and whose images are whose."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.participant import Labelled, Participant
from clients.simulated import Population
from fedenc import documents
from fedenc.data.dataset import Dataset, Split
from fedenc.errors import DataError, TransformationError
from fedenc.keys import KeyRing
from fedenc.protection import Network
from fedenc.scenario import Scenario, parse
from fedenc.shard import Rules, check
from fedenc.transformation.bundle import Transformation, build, save_transformation
from fedenc.transformation.share import labels_digest

SIZE = (8, 8)
CLASSES = tuple("abcde")
TRAIN, TEST = 200, 60


def bundle(folder: Path, **data: Any) -> Transformation:
    """An untrained network: it protects nothing, but it computes."""
    mine = {"fraction": 0.5, "seed": 3, "labels": labels_digest(dataset().train.labels)}
    facts = {"name": "numbers"} | mine | data
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("unet", {"widths": [4, 8]})
    return save_transformation(
        folder,
        network,
        method="unet",
        architecture={"widths": [4, 8]},
        size=SIZE,
        classes=CLASSES,
        info={"data": facts},
    )


def dataset() -> Dataset:
    generator = np.random.Generator(np.random.Philox(0))

    def split(count: int) -> Split:
        images = generator.integers(0, 256, (count, 3, *SIZE), dtype=np.uint8)
        index = np.arange(count)
        images[:, 0, 0, 0] = index
        return Split(images, index % 5)

    return Dataset("numbers", split(TRAIN), split(TEST), CLASSES)


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.simulated.load", lambda *args, **kwargs: dataset())


def scenario(folder: Path | None, **settings: Any) -> Scenario:
    where = {} if folder is None else {"bundle": str(folder)}
    return parse(
        {
            "clients": {"count": 6},
            "encryption": {"cipher": "transformation", "seed": 5},
            "transformation": where | settings,
            "inference": {"images": 7},
        }
    )


def test_what_leaves_is_what_the_network_makes_of_it(tmp_path: Path) -> None:
    network = bundle(tmp_path)
    images, labels = dataset().train.images[:9], dataset().train.labels[:9]
    mine = Labelled(images, labels)
    held_out = {"plain": mine, "encrypted": mine, "foreign": mine}
    owner = Participant(0, mine, held_out, KeyRing(bytes(32)), Network(network))  # type: ignore[arg-type]
    protected = network.protect(torch.from_numpy(images)).numpy()
    rules = Rules(1, (3, *SIZE), 5, 1, ((network.name, network.params()), ("none", {})))
    upload = owner.upload()
    check(upload, rules, purpose="train")
    assert np.array_equal(upload.images, protected)
    plain, encrypted, foreign = owner.queries(("plain", "encrypted", "foreign"))
    for shard, condition in ((encrypted, "encrypted"), (foreign, "foreign")):
        check(shard, rules, purpose=condition)
        assert np.array_equal(np.sort(shard.images[:, 0, 0, 0]), np.sort(protected[:, 0, 0, 0]))
        assert shard.manifest.params == {"method": "unet", "digest": network.digest}
        assert not set(shard.ids.tolist()) & set(plain.ids.tolist())
    assert np.array_equal(np.sort(plain.images[:, 0, 0, 0]), np.sort(images[:, 0, 0, 0]))


def test_nobody_owns_the_third_partys_images(tmp_path: Path) -> None:
    bundle(tmp_path)
    people = Population(scenario(tmp_path, answers="central"))
    owned = np.concatenate([people.participant(i).train.images[:, 0, 0, 0] for i in range(6)])
    assert len(owned) == len(set(owned.tolist())) == TRAIN // 2
    before = Population(scenario(None, answers="central", fraction=0.5)).partitions
    assert sum(map(len, before)) == TRAIN // 2


def test_a_network_of_other_data_takes_nobodys_images(tmp_path: Path) -> None:
    bundle(tmp_path, name="letters", fraction=1.0)
    parts = Population(scenario(tmp_path, answers="central")).partitions
    assert sum(map(len, parts)) == TRAIN


def test_who_uploads_nothing_owns_nothing_and_queries(tmp_path: Path) -> None:
    bundle(tmp_path, fraction=1.0, seed=3)
    people = Population(scenario(tmp_path))
    someone = people.participant(2)
    assert len(someone.train.labels) == 0
    asked = someone.queries(("plain", "encrypted", "foreign"))
    assert [len(shard.images) for shard in asked] == [7, 7, 7]


def test_a_third_party_that_owns_everything(tmp_path: Path) -> None:
    bundle(tmp_path, fraction=1.0, seed=3)
    with pytest.raises(DataError, match="leaves the participants none"):
        Population(scenario(tmp_path, answers="central")).partitions  # noqa: B018


def test_a_bundle_that_does_not_say_what_it_was_trained_on(tmp_path: Path) -> None:
    network = bundle(tmp_path)
    del network.info["data"]["fraction"]  # type: ignore[attr-defined]
    (tmp_path / "participants" / "h.json").write_text(json.dumps(documents.sealed(network.info)))
    with pytest.raises(DataError, match="does not say on which"):
        Population(scenario(tmp_path, answers="central")).partitions  # noqa: B018
    bundle(tmp_path, labels="0" * 64)
    with pytest.raises(DataError, match="another data set that is called numbers"):
        Population(scenario(tmp_path, answers="central")).partitions  # noqa: B018


def test_bundles_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(TransformationError, match="not set"):
        Population(scenario(None)).network  # noqa: B018
    with pytest.raises(TransformationError, match="not a folder"):
        Population(scenario(tmp_path / "absent")).network  # noqa: B018
    bundle(tmp_path)
    with pytest.raises(TransformationError, match=r"expected transformation\.digest = 0000"):
        Population(scenario(tmp_path, digest="0" * 64)).network  # noqa: B018
