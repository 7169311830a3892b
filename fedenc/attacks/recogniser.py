"""What a machine makes of a reconstruction: a classifier that was trained on plain images only."""

import torch
from torch import Tensor

from fedenc import models
from fedenc.attacks.base import Labelled
from fedenc.attacks.measures import Recogniser
from fedenc.training.loop import fit
from fedenc.training.predict import predict
from fedenc.training.recipes import recipe
from fedenc.training.training_set import TrainingSet

LEAST = 200  # images, below which nothing is trained
_SEEN = 20_000  # images in all epochs together; on a CPU a matter of seconds
_EPOCHS = range(8, 41)


def train(public: Labelled, *, seed: int, device: torch.device) -> Recogniser:
    """Train the network ``tiny`` on public images, mirrored and shifted.

    Returns:
        uint8 (N, C, H, W) to the most likely labels, int64 (N,).

    Raises:
        TrainingError: images that it cannot be trained on.
    """
    channels, height, width = public.images.shape[1:]
    network = models.build(
        "tiny", channels=channels, classes=public.classes, size=(height, width), seed=seed
    )
    epochs = min(max(_SEEN // len(public.images), _EPOCHS.start), _EPOCHS.stop - 1)
    config = recipe("fast", epochs=epochs, learning_rate=0.05)
    for _ in fit(
        network, TrainingSet(public.images, public.labels), config, seed=seed, device=device
    ):
        pass

    def recognise(images: Tensor) -> Tensor:
        return predict(network, images, device=device).argmax(1)

    return recognise
