"""Which participant holds which images: IID, or skewed in its labels by a Dirichlet distribution.

Both return one array of indices a participant: int64, ascending, disjoint between participants,
never empty. They are functions of (labels, arguments, seed) alone.
"""

import hashlib
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedenc.errors import DataError

Indices = NDArray[np.int64]
_NOBODY = -1  # owner of an image that a cap leaves over


def iid(
    labels: ArrayLike, participants: int, *, seed: int, cap: int | None = None
) -> list[Indices]:
    """Divide the images at random and evenly: sizes differ by at most one.

    Args:
        labels: integers (N,); only their number matters here.
        participants: how many, 1..N.
        seed: any integer.
        cap: at most this many images each; exactly this many if N ≥ participants × cap. Images
            beyond that stay unused.

    Raises:
        DataError: no labels, fewer images than participants, or a count below 1.
    """
    total = len(_checked(labels, participants, cap))
    generator = _generator(seed)
    sizes = np.full(participants, total // participants)
    sizes[: total % participants] += 1
    owner = np.empty(total, dtype=np.int64)
    owner[generator.permutation(total)] = np.repeat(np.arange(participants), sizes)
    if cap is not None:
        owner[_rank(owner, generator) >= cap] = _NOBODY
    return _indices(owner, participants)


def dirichlet(
    labels: ArrayLike, participants: int, *, alpha: float, seed: int, cap: int | None = None
) -> list[Indices]:
    """Split each class over the participants in proportions drawn from Dirichlet(α, ..., α).

    The label skew of Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural
    Networks" (ICML 2019), section 4, and of Hsu et al. (arXiv 1909.06335): a small α gives each
    participant few classes, a large one approaches an even split. Sizes vary too.

    Participants that would get no image are given one each, taken at random from the largest
    partitions. (The paper's code and flwr-datasets' ``min_partition_size`` draw again until no
    partition is empty, which hardly ever succeeds with many participants or a small α. If no
    partition is empty, the results agree.) The cap is applied last. It keeps a uniformly random
    part of a partition, so that the expected proportions of labels stay the same.

    Args:
        labels: integers (N,).
        participants: how many, 1..N.
        alpha: concentration α, positive and finite; typically 0.1 (skewed) to 100 (nearly IID).
        seed: any integer.
        cap: at most this many images each; images beyond that stay unused.

    Raises:
        DataError: no labels, fewer images than participants, a count below 1, or a bad α.
    """
    array = _checked(labels, participants, cap)
    if not (math.isfinite(alpha) and alpha > 0):
        raise DataError(
            f"the Dirichlet concentration alpha is {alpha}; expected a positive number such as 0.5"
        )
    generator = _generator(seed)
    _, codes, counts = np.unique(array, return_inverse=True, return_counts=True)
    # Class by class, each in random order: one repeat then gives every image its owner.
    shuffled = generator.permutation(len(array))
    by_class = shuffled[np.argsort(codes[shuffled], kind="stable")]
    shares = generator.dirichlet(np.full(participants, float(alpha)), size=len(counts))
    if not np.allclose(shares.sum(axis=1), 1):  # overflow
        raise DataError(f"alpha={alpha} is too extreme to draw from; expected about 0.001 to 10000")
    cuts = (np.cumsum(shares, axis=1) * counts[:, None]).astype(np.int64)  # (classes, participants)
    cuts[:, -1] = counts  # rounding must not lose a class's last image
    dealt = np.diff(np.minimum(cuts, counts[:, None]), axis=1, prepend=0)
    owner = np.empty(len(array), dtype=np.int64)
    # Each class is divided among the participants in an order of its own. Otherwise, where classes
    # have fewer images than there are participants, rounding would favour the same ones each time.
    turn = generator.permuted(np.tile(np.arange(participants), (len(counts), 1)), axis=1)
    owner[by_class] = np.repeat(turn.ravel(), dealt.ravel())
    rank = _rank(owner, generator)
    empty = np.flatnonzero(np.bincount(owner, minlength=participants) == 0)
    # The images of highest rank belong to the largest partitions; the first one (rank 0) of a
    # partition is never among them, as there are at least as many images as participants.
    given = np.argsort(-rank, kind="stable")[: len(empty)]
    owner[given] = empty
    rank[given] = 0
    if cap is not None:
        owner[rank >= cap] = _NOBODY
    return _indices(owner, participants)


def _checked(labels: ArrayLike, participants: int, cap: int | None) -> NDArray[np.integer]:
    array = np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"labels to partition are {array.dtype} of shape {array.shape}; "
            "expected one integer per image, shape (N,)"
        )
    if participants < 1:
        raise DataError(f"cannot partition over {participants} participants; expected 1 or more")
    if participants > len(array):
        raise DataError(
            f"{participants} participants cannot share {len(array)} images, as each needs at least "
            f"one; ask for at most {len(array)} participants or use a larger data set"
        )
    if cap is not None and cap < 1:
        raise DataError(f"the cap of images per participant is {cap}; expected 1 or more, or none")
    return array


def _generator(seed: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}/partition".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def _rank(owner: Indices, generator: np.random.Generator) -> Indices:
    """A random place of each image within its owner's images: 0..size-1, int64 (N,)."""
    order = generator.permutation(len(owner))
    order = order[np.argsort(owner[order], kind="stable")]  # grouped by owner, random within
    sizes = np.bincount(owner)
    rank = np.empty(len(owner), dtype=np.int64)
    rank[order] = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def _indices(owner: Indices, participants: int) -> list[Indices]:
    """Each participant's image indices, ascending, from each image's owner (int64, (N,))."""
    kept = np.flatnonzero(owner != _NOBODY)
    grouped = kept[np.argsort(owner[kept], kind="stable")]  # stable: ascending within an owner
    ends = np.cumsum(np.bincount(owner[kept], minlength=participants))
    return np.split(grouped, ends[:-1])
