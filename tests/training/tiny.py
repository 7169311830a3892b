"""A network and images that train in milliseconds."""

import multiprocessing

import torch
from torch import nn

from fedenc.models.network import Architecture, Network
from fedenc.training import rng
from fedenc.training.training_set import TrainingSet


def network(seed: int = 0, dropout: float = 0.0) -> Network:
    """Two layers with batch normalisation, for 3×8×8 images of four classes."""
    with rng.seeded(seed, "tiny"):
        body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 4),
        )
    front = nn.Dropout(dropout) if dropout else nn.Identity()
    return Network(Architecture("tiny", 3, 4, (8, 8)), front, body)


def examples(count: int = 70, seed: int = 0) -> TrainingSet:
    """Noise, brighter in the quadrant that the label names."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 128, (count, 3, 8, 8), generator=generator)
    for label in range(4):
        row, column = divmod(label, 2)
        part = images[labels == label]
        part[:, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 127
        images[labels == label] = part
    return TrainingSet(images.to(torch.uint8), labels)


def processes() -> multiprocessing.context.ForkServerContext:
    """Where to start processes of one's own that have all that training needs imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fedenc.training.loop"])
    return context
