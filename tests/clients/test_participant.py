"""A participant: what it sends is deterministic, protected, unpairable, and counted by itself."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from clients.participant import Labelled, Participant
from fedenc import ciphers
from fedenc.data.augment import named
from fedenc.keys import KeyRing, Policy
from fedenc.protection import Keyed, Plain
from fedenc.scenario.sections import Condition
from fedenc.shard import Rules, Shard, check

SHAPE = (3, 8, 8)


def labelled(rows: int, seed: int) -> Labelled:
    generator = np.random.Generator(np.random.Philox(seed))
    images = generator.integers(0, 256, (rows, *SHAPE), dtype=np.uint8)
    return Labelled(images, generator.integers(0, 4, rows))


def participant(i: int = 2, policy: Policy = "client", **changes: Any) -> Participant:
    paired = labelled(9, 2)
    held_out: Mapping[Condition, Labelled] = {
        "plain": paired,
        "encrypted": paired,
        "same-key": labelled(7, 3),
    }
    parts: dict[str, Any] = {
        "id": i,
        "train": labelled(6, 1),
        "held_out": held_out,
        "ring": changes.get("ring", KeyRing(bytes(range(32)), i)),
    }
    parts["protection"] = Keyed(ciphers.make("pixel"), parts["ring"], policy)
    return Participant(**(parts | changes))


def rules(views: int = 1) -> Rules:
    cipher = ciphers.make("pixel")
    return Rules(10, SHAPE, 4, views, ((cipher.name, cipher.params()), ("none", {})))


def decrypted(
    shard: Shard, owner: Participant, policy: Policy, purpose: str
) -> npt.NDArray[np.uint8]:
    """What the key's holder reads, by an independent call of key ring and cipher."""
    stream = owner.ring.keystream(
        method="pixel",
        policy=policy,
        purpose=purpose,
        nonce=bytes.fromhex(shard.manifest.nonce),
        ids=shard.ids,
        views=shard.views.astype(np.int64),
    )
    images = torch.from_numpy(shard.images.copy())
    plain: npt.NDArray[np.uint8] = ciphers.make("pixel").decrypt(images, stream).numpy()
    return plain


@pytest.mark.parametrize("policy", ["same", "client", "image"])
def test_upload_is_protected_accepted_and_read_by_its_key_alone(policy: Policy) -> None:
    owner = participant(policy=policy)
    shard = owner.upload()
    check(shard, rules(), purpose="train")
    np.testing.assert_array_equal(decrypted(shard, owner, policy, "train"), owner.train.images)
    np.testing.assert_array_equal(shard.labels, owner.train.labels)  # type: ignore[arg-type]
    assert (shard.images != owner.train.images).mean() > 0.4
    other = participant(ring=KeyRing(bytes(32), 2), policy=policy)
    assert (decrypted(shard, other, policy, "train") != owner.train.images).mean() > 0.4


@pytest.mark.parametrize("conditions", [("plain", "encrypted", "same-key"), ("encrypted",)])
def test_everything_sent_is_a_function_of_what_is_held(conditions: tuple[Condition, ...]) -> None:
    first, second = participant(), participant()
    assert first.upload().manifest == second.upload().manifest  # which holds the digest
    ours, theirs = first.queries(conditions), second.queries(conditions)
    assert [s.manifest for s in ours] == [s.manifest for s in theirs]
    assert [s.manifest for s in first.queries(conditions)] == [s.manifest for s in ours]


def test_no_nonce_and_no_id_is_shared_between_batches_or_participants() -> None:
    shards = [
        s
        for i in (1, 2)
        for s in [
            participant(i).upload(),
            *participant(i).queries(("plain", "encrypted", "same-key")),
        ]
    ]
    assert len({s.manifest.nonce for s in shards}) == len(shards)
    query_ids = [i for s in shards if s.labels is None for i in s.ids.tolist()]
    assert len(set(query_ids)) == len(query_ids)


def test_paired_queries_show_no_pairs() -> None:
    """The same images under other ids in another order, so that only their owner pairs them."""
    owner = participant()
    assert owner.paired
    plain, encrypted = owner.queries(("plain", "encrypted"))
    restored = decrypted(encrypted, owner, "image", "query")
    images = owner.held_out["plain"].images

    def order(sent: npt.NDArray[np.uint8]) -> list[int]:
        return [int((images == row).all((1, 2, 3)).argmax()) for row in sent]

    assert sorted(order(plain.images)) == sorted(order(restored)) == list(range(9))
    assert order(plain.images) != order(restored)
    assert order(plain.images) != list(range(9))
    assert not set(plain.ids.tolist()) & set(encrypted.ids.tolist())
    for shard in (plain, encrypted):
        check(shard, rules(), purpose=shard.manifest.purpose)
        assert shard.labels is None


def test_same_key_queries_are_under_the_key_of_the_upload() -> None:
    owner = participant(policy="client")
    (query,) = owner.queries(("same-key",))
    restored = decrypted(query, owner, "client", "train")
    images = owner.held_out["same-key"].images
    assert sorted(r.tobytes() for r in restored) == sorted(r.tobytes() for r in images)


@pytest.mark.parametrize("policy", ["same", "client", "image"])
def test_encrypted_queries_share_no_key_with_anything(policy: Policy) -> None:
    """Each under its own key: equal images differ in every batch and within one."""
    same = Labelled(np.full((5, *SHAPE), 7, np.uint8), np.zeros(5, np.int64))
    owner = participant(policy=policy, train=same, held_out={"encrypted": same})
    (query,) = owner.queries(("encrypted",))
    sent = {row.tobytes() for row in query.images}
    assert len(sent) == 5
    assert not sent & {row.tobytes() for row in owner.upload().images}


def test_views_are_independent_ciphertexts_of_every_image() -> None:
    owner = participant(policy="image", views=3)
    shard = owner.upload()
    check(shard, rules(views=3), purpose="train")
    restored = decrypted(shard, owner, "image", "train")
    for row, (image, view) in enumerate(zip(shard.ids, shard.views, strict=True)):
        np.testing.assert_array_equal(restored[row], owner.train.images[image])
        assert 0 <= view < 3
        assert shard.labels is not None
        assert shard.labels[row] == owner.train.labels[image]
    assert len({row.tobytes() for row in shard.images}) == 18


def test_exhaustive_copies_are_images_of_their_own() -> None:
    owner = participant(policy="image", views=2, augmentation=named("flip-all"))
    shard = owner.upload()
    check(shard, rules(views=2), purpose="train")
    assert shard.manifest.rows == 6 * 2 * 2
    restored = decrypted(shard, owner, "image", "train")
    for row, number in enumerate(shard.ids):
        image, flipped = divmod(int(number), 2)
        expected = owner.train.images[image][..., :: -1 if flipped else 1]
        np.testing.assert_array_equal(restored[row], expected)
        assert shard.labels is not None
        assert shard.labels[row] == owner.train.labels[image]


def test_plain_augmentation_comes_before_encryption_and_repeats() -> None:
    owner = participant(policy="image", augmentation=named("crop-flip"), fill=9)
    first, second = owner.upload(), owner.upload()
    assert first.manifest == second.manifest
    restored = decrypted(first, owner, "image", "train")
    assert (restored != owner.train.images).any()
    np.testing.assert_array_equal(first.labels, owner.train.labels)  # type: ignore[arg-type]


def test_who_stays_plain_sends_plain_images_and_says_so() -> None:
    owner = participant(protection=Plain(), query_protection=participant().protection)
    shard = owner.upload()
    assert (shard.manifest.cipher, dict(shard.manifest.params)) == ("none", {})
    np.testing.assert_array_equal(shard.images, owner.train.images)
    (query,) = owner.queries(("encrypted",))
    assert query.manifest.cipher == "pixel"


def test_only_what_is_held_is_asked() -> None:
    owner = participant(held_out={"plain": labelled(3, 4)})
    assert [s.manifest.purpose for s in owner.queries(("plain", "encrypted"))] == ["plain"]
    assert owner.queries(("same-key",)) == []


def test_counts_equal_an_independent_computation() -> None:
    owner = participant()
    generator = np.random.Generator(np.random.Philox(8))
    answers: dict[Condition, npt.NDArray[np.float32]] = {}
    correct: dict[str, int] = {}
    guess_of: dict[str, dict[bytes, int]] = {}
    for shard in owner.queries(("plain", "encrypted", "same-key")):
        condition: Any = shard.manifest.purpose
        scores = generator.random((shard.manifest.rows, 4), dtype=np.float32)
        answers[condition] = scores
        if condition == "plain":
            restored = shard.images
        elif condition == "encrypted":
            restored = decrypted(shard, owner, "image", "query")
        else:
            restored = decrypted(shard, owner, "client", "train")
        held = owner.held_out[condition]
        label_of = {x.tobytes(): y for x, y in zip(held.images, held.labels, strict=True)}
        guess_of[condition] = {
            x.tobytes(): int(s.argmax()) for x, s in zip(restored, scores, strict=True)
        }
        correct[condition] = sum(label_of[x] == g for x, g in guess_of[condition].items())
    score = owner.score(answers)
    assert score.correct == correct
    assert score.total == {"plain": 9, "encrypted": 9, "same-key": 7}
    pairs = guess_of["plain"].keys() & guess_of["encrypted"].keys()
    assert score.pairs == len(pairs) == 9
    assert score.agree == sum(guess_of["plain"][x] == guess_of["encrypted"][x] for x in pairs)
    label_of = {
        x.tobytes(): y
        for x, y in zip(owner.held_out["plain"].images, owner.held_out["plain"].labels, strict=True)
    }
    twice = [guess_of[c] for c in ("plain", "encrypted")]
    assert score.both == sum(all(guess[x] == label_of[x] for guess in twice) for x in pairs)


def test_without_pairs_there_is_no_agreement() -> None:
    owner = participant(held_out={"plain": labelled(3, 4), "encrypted": labelled(3, 5)})
    score = owner.score(dict.fromkeys(("plain", "encrypted"), np.ones((3, 4), np.float32)))
    assert (score.agree, score.pairs) == (None, None)
    assert set(score.to_json()) == {"correct", "total", "agree", "pairs", "both"}


def test_random_augmentation_makes_views_differ_under_one_key() -> None:
    owner = participant(policy="same", views=3, augmentation=named("crop-flip"))
    shard = owner.upload()
    check(shard, rules(views=3), purpose="train")
    restored = decrypted(shard, owner, "same", "train")
    assert len({row.tobytes() for row in restored}) > 6 * 2


def test_shared_views_are_ciphertexts_of_one_augmented_image() -> None:
    """Chuman & Kiya 2021: several permutations of every modified image."""
    method = {"policy": "image", "views": 3, "augmentation": named("crop-flip"), "fill": 200}
    for shared, different in ((True, 1), (False, 3)):
        owner = participant(**method, shared=shared)
        shard = owner.upload()
        check(shard, rules(views=3), purpose="train")
        restored = decrypted(shard, owner, "image", "train")
        seen = [{restored[r].tobytes() for r in np.flatnonzero(shard.ids == i)} for i in range(6)]
        assert max(map(len, seen)) == different
        assert len({row.tobytes() for row in shard.images}) == 18


def test_shared_views_of_exhaustive_copies_keep_their_order() -> None:
    method = {"policy": "image", "views": 2, "augmentation": named("flip-all")}
    one, anew = (participant(**method, shared=shared) for shared in (True, False))
    np.testing.assert_array_equal(one.copies(), anew.copies())


def test_a_ring_that_serves_again_spends_no_keystream_twice() -> None:
    """As simulations do, whose key seed outlives a run: ids start at 0 in each of them."""
    first, again = participant(policy="image"), participant(policy="image")
    other = participant(policy="image", train=labelled(6, 5))
    assert first.upload().manifest.nonce == again.upload().manifest.nonce
    assert first.upload().manifest.nonce != other.upload().manifest.nonce
