"""From a scenario's sections to the library's network and training configuration."""

from fedenc import models
from fedenc.models.network import Network
from fedenc.scenario.sections import Augmentation, Model, Training
from fedenc.training.config import TrainingConfig
from fedenc.training.recipes import recipe


def network(model: Model, shape: tuple[int, int, int], classes: int, seed: int) -> Network:
    """The scenario's network, untrained, for images of ``shape`` (C, H, W).

    Raises:
        TrainingError: a name that does not exist, or parts that do not fit.
    """
    channels, height, width = shape
    return models.build(
        model.name,
        channels=channels,
        classes=classes,
        size=(height, width),
        input=model.input,
        adapter=model.adapter,
        seed=seed,
    )


def training_config(
    training: Training, augmentation: Augmentation, *, method: str
) -> TrainingConfig:
    """The recipe with the scenario's changes; ``method`` augments what is in the pool.

    Raises:
        TrainingError: a recipe, a value or an augmentation that does not exist.
    """
    return recipe(
        training.recipe,
        scale=training.scale,
        augmentation=method,
        fill=augmentation.fill,
        **training.changes(),
    )


def server_method(augmentation: Augmentation) -> str:
    """What the server does to ciphertext."""
    return (augmentation.server or "none") if augmentation.domain == "encrypted" else "none"
