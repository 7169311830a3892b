"""Partitions: deterministic, disjoint, complete, and distributed as flwr-datasets' are."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedenc.data.partition import dirichlet, iid
from fedenc.errors import DataError


def partition(labels, participants, alpha, **options):
    if alpha is None:
        return iid(labels, participants, **options)
    return dirichlet(labels, participants, alpha=alpha, **options)


def sizes(parts):
    return np.array([len(part) for part in parts])


def class_counts(parts, labels, classes):
    return np.stack([np.bincount(labels[part], minlength=classes) for part in parts])


@st.composite
def problems(draw):
    total = draw(st.integers(1, 300))
    classes = draw(st.integers(1, 12))
    labels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, classes, total)
    participants = draw(st.integers(1, total))
    alpha = draw(st.none() | st.sampled_from([1e-3, 0.1, 1.0, 50.0]))
    cap = draw(st.none() | st.integers(1, 40))
    return labels, participants, alpha, cap


@given(problems(), st.integers(-5, 2**70))
def test_disjoint_sorted_never_empty(problem, seed):
    labels, participants, alpha, cap = problem
    parts = partition(labels, participants, alpha, seed=seed, cap=cap)
    assert len(parts) == participants
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert together.min() >= 0
    assert together.max() < len(labels)
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) >= 1
        assert (np.diff(part) > 0).all()
    if cap is None:
        assert len(together) == len(labels)
    else:
        assert sizes(parts).max() <= cap
        if alpha is None and participants * cap <= len(labels):
            assert (sizes(parts) == cap).all()
    again = partition(labels, participants, alpha, seed=seed, cap=cap)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(problems(), st.integers(0, 99))
def test_a_cap_only_takes_away(problem, seed):
    labels, participants, alpha, cap = problem
    full = partition(labels, participants, alpha, seed=seed)
    capped = partition(labels, participants, alpha, seed=seed, cap=cap)
    limit = len(labels) if cap is None else cap
    assert (sizes(capped) == np.minimum(sizes(full), limit)).all()
    assert all(np.isin(small, big).all() for small, big in zip(capped, full, strict=True))


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_seeds_differ(alpha):
    labels = np.arange(1000) % 10
    first, second = (np.concatenate(partition(labels, 7, alpha, seed=s)) for s in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("alpha", "digest"),
    [
        (None, "89053d90acef0fa9"),
        (0.5, "8559f1b5e937ffea"),
    ],
)
def test_golden(alpha, digest):
    """Results name a seed, so a seed's partition must not change."""
    parts = partition(np.arange(500) % 7, 9, alpha, seed=2024, cap=40)
    found = hashlib.sha256(b"|".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()
    assert found[:16] == digest


def flower_partitions(labels, partitioner):
    datasets = pytest.importorskip("datasets")
    partitioner.dataset = datasets.Dataset.from_dict({"label": labels, "row": range(len(labels))})
    count = partitioner.num_partitions
    return [np.array(partitioner.load_partition(i)["row"]) for i in range(count)]


@pytest.mark.parametrize(("total", "participants"), [(100, 1), (100, 7), (103, 10), (64, 64)])
def test_iid_sizes_are_flowers(total, participants):
    from flwr_datasets.partitioner import IidPartitioner

    labels = np.arange(total) % 10
    theirs = flower_partitions(labels, IidPartitioner(participants))
    assert (sizes(iid(labels, participants, seed=3)) == sizes(theirs)).all()


def test_iid_labels_are_hypergeometric():
    """Drawing without replacement: counts of a class have the textbook mean and variance."""
    labels = np.arange(2000) % 10
    counts = np.concatenate(
        [class_counts(iid(labels, 20, seed=s), labels, 10).ravel() for s in range(60)]
    )
    assert counts.mean() == pytest.approx(10)
    assert counts.var() == pytest.approx(100 * 0.1 * 0.9 * (1900 / 1999), rel=0.05)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_dirichlet_skew_is_flowers(alpha):
    """The same distribution of a participant's label shares, its entropy, and its size."""
    from flwr_datasets.partitioner import DirichletPartitioner
    from scipy.stats import ks_2samp

    labels = np.arange(2000) % 10
    entropies, shares = ([], []), ([], [])
    for seed in range(12):
        # flwr-datasets redraws until nobody is empty, we give the empty an image: ask for so few
        # participants that neither happens often, and compare what the draws themselves give.
        theirs = flower_partitions(
            labels,
            DirichletPartitioner(
                8, "label", alpha=alpha, min_partition_size=0, seed=seed, shuffle=False
            ),
        )
        for side, parts in enumerate((dirichlet(labels, 8, alpha=alpha, seed=seed), theirs)):
            counts = class_counts(parts, labels, 10)
            shares[side].append(counts.ravel() / 200)
            p = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            entropies[side].append(-(p * np.log(np.where(p > 0, p, 1))).sum(axis=1))
    for ours, theirs in (entropies, shares):
        assert ks_2samp(np.concatenate(ours), np.concatenate(theirs)).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.2, 1.0, 20.0])
def test_dirichlet_moments(alpha):
    """Shares of a class have the Dirichlet's mean 1/P and variance (P−1)/(P²(αP+1))."""
    people, labels = 6, np.arange(10_000) % 10
    counts = [
        class_counts(dirichlet(labels, people, alpha=alpha, seed=s), labels, 10) for s in range(80)
    ]
    shares = np.stack(counts) / 1000
    assert shares.mean() == pytest.approx(1 / people)
    assert shares.var() == pytest.approx((people - 1) / (people**2 * (alpha * people + 1)), rel=0.1)


def test_dirichlet_takes_from_the_largest():
    """With more participants than the draw serves, the largest partitions are levelled down."""
    labels = np.zeros(400, dtype=np.int64)
    parts = sizes(dirichlet(labels, 300, alpha=0.001, seed=1))
    assert parts.min() == 1
    assert parts.sum() == 400


def test_dirichlet_cap_keeps_label_shares():
    labels = np.arange(20_000) % 10
    full, capped = [], []
    for seed in range(40):
        full.append(class_counts(dirichlet(labels, 10, alpha=0.5, seed=seed), labels, 10))
        capped.append(
            class_counts(dirichlet(labels, 10, alpha=0.5, seed=seed, cap=200), labels, 10)
        )
    share, capped_share = (
        np.concatenate(c) / np.concatenate(c).sum(axis=1, keepdims=True) for c in (full, capped)
    )
    # 200 of about 2,000 drawn without replacement: a standard error below 0.036 a share
    assert np.abs(share - capped_share).max() < 6 * 0.036
    assert np.abs((share - capped_share).mean(axis=0)).max() < 0.01


def test_thousands_of_participants():
    labels = np.arange(50_000) % 10
    for parts in (iid(labels, 5000, seed=0), dirichlet(labels, 5000, alpha=0.1, seed=0)):
        assert len(parts) == 5000
        assert sizes(parts).min() >= 1
        assert sizes(parts).sum() == 50_000


@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.parametrize(
    ("labels", "participants", "cap", "complaint"),
    [
        ([0, 1, 2], 4, None, "4 participants cannot share 3 images"),
        ([0, 1, 2], 0, None, "0 participants"),
        ([], 1, None, "expected one integer per image"),
        (np.zeros(0, dtype=int), 1, None, "0 images"),
        ([0, 1, 2], 2, 0, "cap of images per participant is 0"),
        ([[0, 1]], 1, None, r"shape \(1, 2\)"),
        ([0.5, 1.5], 1, None, "float64"),
    ],
)
def test_bad_input(alpha, labels, participants, cap, complaint):
    with pytest.raises(DataError, match=complaint):
        partition(labels, participants, alpha, seed=0, cap=cap)


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf")])
def test_bad_alpha(alpha):
    with pytest.raises(DataError, match="alpha is"):
        dirichlet([0, 1, 2], 2, alpha=alpha, seed=0)


def test_tiny_alpha_gives_a_class_to_one():
    labels = np.arange(100) % 10
    counts = class_counts(dirichlet(labels, 3, alpha=1e-12, seed=0), labels, 10)
    assert (np.sort(counts, axis=0)[:2] <= 1).all()  # at most the images given to the empty
    assert counts.sum() == 100


def test_huge_alpha_is_nearly_iid_even_for_scarce_classes():
    """Rounding must not favour the same participants in every class (5 images for 50 people)."""
    labels = np.arange(1000) % 200
    parts = sizes(dirichlet(labels, 50, alpha=1e6, seed=0))
    assert parts.mean() == 20
    assert parts.std() < 2 * np.sqrt(20)


def test_overflowing_alpha():
    with pytest.raises(DataError, match="too extreme"):
        dirichlet(np.arange(100) % 10, 10, alpha=1e308, seed=0)
