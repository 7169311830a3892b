"""One data owner: its images, its keys, and the three things it does with them.

Everything a participant sends is a deterministic function of what it holds. So a repeated request
gets the same bytes in answer, even from another process.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedenc.data.augment import Augmentation, expand
from fedenc.keys import KeyRing
from fedenc.protection import Context, Protection
from fedenc.scenario.sections import ENCRYPTED, PLAIN, SAME_KEY, Condition
from fedenc.shard import NONCE_BYTES, TRAIN, Shard, seal

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """Images uint8 N×C×H×W and their labels int64 (N,)."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class Score:
    """What a participant reports about the answers it got: counts, never labels."""

    correct: dict[str, int]  # by condition
    total: dict[str, int]
    agree: int | None = None  # same class for the plain and the encrypted form of an image
    pairs: int | None = None
    both: int | None = None  # pairs whose plain and encrypted form were both answered right

    def to_json(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "correct": self.correct,
            "total": self.total,
            "agree": self.agree,
            "pairs": self.pairs,
            "both": self.both,
        }


@dataclass(frozen=True)
class Participant:
    """A data owner and its policy.

    Attributes:
        id: the participant's number, public.
        train: the images that it owns and uploads; empty for outsiders.
        held_out: the images that it asks about, by condition. If it sends pairs, ``plain`` and
            ``encrypted`` hold the same object.
        ring: its private randomness, and its keys if its protection has any.
        protection: of what it uploads.
        query_protection: of its queries, except plain ones; None: as ``protection``.
        views: number of protected copies of every uploaded image.
        augmentation: what it does to its training images before it protects them.
        query_augmentation: what it does to its queries before it protects them.
        fill: 0..255, the value of pixels that a shift leaves empty.
        shared: whether all views of an image show one augmented copy, not one each.
    """

    id: int
    train: Labelled
    held_out: Mapping[Condition, Labelled]
    ring: KeyRing
    protection: Protection
    query_protection: Protection | None = None
    views: int = 1
    augmentation: Augmentation = field(default_factory=Augmentation)
    query_augmentation: Augmentation = field(default_factory=Augmentation)
    fill: int = 0
    shared: bool = False

    def upload(self) -> Shard:
        """Protect and seal the whole partition, every image in ``views`` copies.

        Each copy that an exhaustive augmentation makes counts as an image, with its own id and key.
        """
        image, view, ids = self._copies()
        images = self.copies()
        return self._seal(
            TRAIN,
            images,
            self.protection,
            Context(TRAIN, self.nonce(TRAIN, images), ids, view),
            labels=self.train.labels[image],
            views=view,
            view_count=self.views,
        )

    def copies(self) -> Images:
        """What ``upload`` protects, in its order: every image in ``views`` augmented copies."""
        if not self.shared:
            repeated = np.repeat(self.train.images, self.views, axis=0)
            return self._augmented(repeated, self.augmentation, TRAIN)
        once = self._augmented(self.train.images, self.augmentation, TRAIN)
        # N×1×copies×C×H×W: the views of an image stand before its copies
        by_image = once.reshape(-1, 1, self.augmentation.copies, *once.shape[1:])
        return np.repeat(by_image, self.views, axis=1).reshape(-1, *once.shape[1:])

    @property
    def originals(self) -> Indices:
        """int64 (R,): the place in ``train`` of the image that each row of ``upload`` shows."""
        return self._copies()[0]

    def _copies(self) -> tuple[Indices, Indices, Indices]:
        """For every row of an upload: which image it shows, which view of it it is, and its id."""
        copies = self.augmentation.copies
        image, view, copy = np.indices((len(self.train.labels), self.views, copies)).reshape(3, -1)
        return image, view, image * copies + copy

    def queries(self, conditions: tuple[Condition, ...]) -> list[Shard]:
        """Held-out images as asked, without labels, under fresh ids and in a fresh order."""
        return [self._query(c) for c in conditions if c in self.held_out]

    def score(self, answers: Mapping[Condition, Scores]) -> Score:
        """Count right answers.

        Args:
            answers: class scores float32 N×classes by condition, in the order queries were sent.
        """
        guesses: dict[Condition, npt.NDArray[np.int64]] = {}
        correct, total = dict[str, int](), dict[str, int]()
        for condition, scores in answers.items():
            order = self._orders[condition]
            guess = np.empty(len(order), np.int64)
            guess[order] = scores.argmax(axis=1)
            guesses[condition] = guess
            correct[condition] = int((guess == self.held_out[condition].labels).sum())
            total[condition] = len(order)
        if not self.paired or not {PLAIN, ENCRYPTED} <= guesses.keys():
            return Score(correct, total)
        same = guesses[PLAIN] == guesses[ENCRYPTED]
        both = same & (guesses[PLAIN] == self.held_out[PLAIN].labels)
        return Score(correct, total, int(same.sum()), len(same), int(both.sum()))

    @property
    def paired(self) -> bool:
        """Whether the same images are asked plain and encrypted."""
        plain, encrypted = self.held_out.get(PLAIN), self.held_out.get(ENCRYPTED)
        return plain is not None and plain is encrypted

    @cached_property
    def _orders(self) -> dict[Condition, npt.NDArray[np.int64]]:
        """For every condition, the order in which images are sent. It is secret, so that the
        provider cannot pair plain and encrypted queries by their order."""
        return {
            c: self._generator("query order", c).permutation(len(h.labels))
            for c, h in self.held_out.items()
        }

    def _query(self, condition: Condition) -> Shard:
        order = self._orders[condition]
        # Augmented before they are put in order, and alike under every condition, so that the plain
        # and the encrypted query of a pair still show the same image.
        asked = self.held_out[condition].images
        images = self._augmented(asked, self.query_augmentation, "query")[order]
        ids = self._generator("query ids", condition).choice(1 << 53, len(order), replace=False)
        nonce = self.nonce(condition, images)
        context = Context("query", nonce, ids, independent=True)
        protection = self.query_protection or self.protection
        if condition == PLAIN:
            protection = protection.plain()
        elif condition == SAME_KEY:
            context = Context(TRAIN, nonce, ids)
        return self._seal(condition, images, protection, context)

    def _augmented(self, images: Images, how: Augmentation, purpose: str) -> Images:
        """Copies of every image, consecutive: plain-domain augmentation, Enc(f_d(T))."""
        if how.identity:
            return images
        seed = int(self._generator("augmentation", purpose).integers(1 << 63))
        generator = torch.Generator().manual_seed(seed)
        copies = expand(_tensor(images), how, generator, fill=self.fill)
        augmented: Images = copies.numpy()
        return augmented

    def _seal(
        self, purpose: str, images: Images, protection: Protection, context: Context, **parts: Any
    ) -> Shard:
        return seal(
            participant=self.id,
            purpose=purpose,
            nonce=context.nonce,
            cipher=protection.name,
            params=protection.params(),
            images=protection.protect(_tensor(images), context).numpy(),
            ids=context.ids,
            original=images.shape[1:],
            **parts,
        )

    def nonce(self, purpose: str, images: Images) -> bytes:
        """Public, as hard to predict as the key ring, and different for different images: so a ring
        that is used again encrypts no two of them under one keystream, and a repeated request
        still gets the same bytes."""
        content = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
        return self.ring.secret("nonce", self.id, purpose, content)[:NONCE_BYTES]

    def _generator(self, *purpose: str) -> np.random.Generator:
        """Private randomness, derived from the participant's key."""
        secret = self.ring.secret("randomness", self.id, *purpose)
        return np.random.Generator(np.random.Philox(int.from_bytes(secret, "little")))


def _tensor(images: Images) -> torch.Tensor:
    """The images as a tensor; torch warns about arrays that are not writable."""
    return torch.from_numpy(images if images.flags.writeable else images.copy())
