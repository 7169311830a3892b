"""Class scores for query images."""

import torch
from torch import Tensor, nn

from fedenc.errors import TrainingError
from fedenc.training.precision import autocast


@torch.no_grad()
def predict(
    model: nn.Module,
    images: Tensor,
    *,
    device: torch.device,
    batch_size: int = 512,
    flip: bool = False,
    precision: str = "auto",
) -> Tensor:
    """Softmax probabilities, float32 N×classes on the CPU, for uint8 N×C×H×W images.

    ``flip`` averages the probabilities with those of the mirrored images (test-time augmentation,
    Chuman & Kiya 2021). The model is used in evaluation mode and left in the mode it was in.
    TrainingError if the images do not fit the model.
    """
    check_images(model, images)
    if batch_size < 1:
        raise TrainingError(f"batch_size is {batch_size}; expected at least 1")
    training = model.training
    model.to(device).eval()
    scores = []
    try:
        with autocast(precision, device):
            for batch in torch.split(images, batch_size):
                inputs = batch.to(device).contiguous(memory_format=torch.channels_last)
                probabilities = model(inputs).float().softmax(dim=1)
                if flip:
                    mirrored = model(inputs.flip(-1)).float().softmax(dim=1)
                    probabilities = (probabilities + mirrored) / 2
                scores.append(probabilities)
    finally:
        model.train(training)
    return torch.cat(scores).cpu()


def check_images(model: nn.Module, images: Tensor) -> None:
    """TrainingError unless ``images`` is what the model's input stage takes, and not empty."""
    found = f"{str(images.dtype).removeprefix('torch.')} {'×'.join(map(str, images.shape))}"
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise TrainingError(f"images are {found}; expected uint8 N×C×H×W")
    if not len(images):
        raise TrainingError("there are no images; expected at least one")
    architecture = getattr(model, "architecture", None)
    if architecture is not None:
        expected = (architecture.channels, *architecture.size)
        if tuple(images.shape[1:]) != expected:
            wanted = "×".join(map(str, expected))
            raise TrainingError(f"images are {found}; this model takes uint8 N×{wanted}")
