"""What an epoch visits, in which order, and how it is augmented: a function of (seed, epoch) alone.

Nothing carries over from one epoch to the next, so a run can be resumed in the middle of one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedenc import seeding
from fedenc.data import augment
from fedenc.data.augment import Augmentation, Draw


@dataclass(frozen=True)
class Plan:
    """One epoch: row ``rows[i]`` of the training set is visited i-th, augmented by ``draws[i]``."""

    rows: Tensor  # int64, images · copies
    draws: Draw | None  # None: nothing to do
    steps: int

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Draw | None, int]:
        """Rows and draws of a step, and the size of the whole batch.

        An epoch is cut into nearly equal batches, none of them a stub that would upset batch
        normalisation. Of ``world`` workers, worker ``rank`` gets every ``world``-th row.
        """
        total = len(self.rows)
        start, stop = step * total // self.steps, (step + 1) * total // self.steps
        part = slice(start + rank, stop, world)
        return self.rows[part], None if self.draws is None else self.draws[part], stop - start


def steps_per_epoch(images: int, augmentation: Augmentation, batch_size: int) -> int:
    return -(-images * augmentation.copies // batch_size)


def make_plan(
    images: Tensor,
    *,
    views: int,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    epoch: int,
    home: torch.device,
    device: torch.device,
) -> Plan:
    """The plan of epoch ``epoch`` (0-based) over the images numbered in ``images`` (int64).

    Image m owns the rows m·views to m·views + views − 1. Each visit takes one of them at random;
    every exhaustive copy of an image is one visit. Drawn on the CPU; rows are kept where the
    images are (``home``), draws on ``device``.
    """
    copies = augmentation.copies
    count = len(images) * copies
    order = torch.randperm(count, generator=seeding.generator(seed, "order", epoch))
    rows = images[order // copies] * views
    if views > 1:
        rows += torch.randint(views, (count,), generator=seeding.generator(seed, "view", epoch))
    draws = None
    if not augmentation.identity:
        generator = seeding.generator(seed, "augmentation", epoch)
        draws = augment.draw(augmentation, order % copies, generator).to(device)
    return Plan(rows.to(home), draws, steps_per_epoch(len(images), augmentation, batch_size))
