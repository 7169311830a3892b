"""The rows of the accuracy table, and the images that each one trains and queries on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from fedenc import ciphers, seeding
from fedenc.data import augment
from fedenc.data.dataset import Dataset, Split
from fedenc.keys import KeyRing

PROTECTIONS = ("plain", "np-same", "np-image", "np-cs-image")
FRONTS = ("raw", "conv1x1", "invariant")
DOMAINS = ("none", "plain", "encrypted")  # augmented by nobody, by owners, by the server
VIEWS = 4  # augmented copies an owner uploads under keys of their own, where it augments


@dataclass(frozen=True)
class Row:
    """One trained model: how images are protected, what enters it, who augments, and the seed."""

    protection: str
    front: str
    domain: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.protection}_{self.front}_{self.domain}_{self.seed}"

    @property
    def policy(self) -> str:
        return "same" if self.protection.endswith("same") else "image"

    @property
    def input(self) -> str:
        """The strongest features that the protection leaves alone: sorting costs without CS."""
        if self.front != "invariant":
            return "raw"
        return "invariant" if "cs" in self.protection else "invariant-np"

    @property
    def adapter(self) -> str | None:
        return "conv1x1" if self.front == "conv1x1" else None

    def protect(self, images: Tensor, purpose: str, views: Tensor | int = 0) -> Tensor:
        """uint8 N×C×H×W encrypted as this row says."""
        if self.protection == "plain":
            return images
        count = len(images)
        per_view = int(views.max()) + 1 if isinstance(views, Tensor) else 1
        ring = KeyRing.simulated(f"accuracy-{self.seed}", 0)
        keystream = ring.keystream(
            method="pixel",
            policy="same" if self.policy == "same" else "image",
            # one key for training and query images is what the policy means
            purpose="train" if self.policy == "same" else purpose,
            nonce=ring.secret("nonce", purpose)[:16],
            ids=np.arange(count) // per_view,
            views=views.numpy() if isinstance(views, Tensor) else views,
        )
        cipher = ciphers.make("pixel", color_shuffle="cs" in self.protection)
        return cipher.encrypt(images, keystream)


def rows(seeds: int) -> Iterator[Row]:
    """All rows, seed by seed."""
    for seed, protection, front, domain in product(range(seeds), PROTECTIONS, FRONTS, DOMAINS):
        yield Row(protection, front, domain, seed)


def training_set(
    row: Row, data: Split, images: int | None, kind: str
) -> tuple[Tensor, Tensor, int]:
    """Images and labels as uploaded, by (image, view), and the number of views.

    Of a larger set ``images`` are drawn by the seed. An owner who augments (``kind``) uploads
    several copies of each image, every one under its own key: of random ones an epoch visits one,
    of an exhaustive set all.
    """
    chosen = torch.arange(len(data.labels))
    if images is not None and images < len(chosen):
        order = torch.randperm(len(chosen), generator=seeding.generator(row.seed, "subset"))
        chosen = order[:images].sort().values
    pixels = torch.from_numpy(np.array(data.images[chosen.numpy()]))
    labels = torch.from_numpy(np.array(data.labels[chosen.numpy()]))
    if row.domain != "plain":
        return row.protect(pixels, "train"), labels, 1
    method, generator = augment.named(kind), seeding.generator(row.seed, "owner's augmentation")
    if method.copies > 1:  # an exhaustive set: every copy is an image of its own
        copies = augment.expand(pixels, method, generator)
        return row.protect(copies, "train"), labels.repeat_interleave(method.copies), 1
    copies = augment.expand(pixels.repeat_interleave(VIEWS, dim=0), method, generator)
    views = torch.arange(VIEWS).repeat(len(pixels))
    return row.protect(copies, "train", views), labels.repeat_interleave(VIEWS), VIEWS


def queries(row: Row, data: Dataset) -> dict[str, Tensor]:
    """All test images, plain and encrypted."""
    plain = torch.from_numpy(np.array(data.test.images))
    return {"encrypted": row.protect(plain, "query"), "plain": plain}
