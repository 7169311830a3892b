"""From a scenario's training section to the library's configuration."""

from fedenc.scenario import Augmentation, Training
from fedenc.training.config import TrainingConfig
from fedenc.training.recipes import recipe


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
    return augmentation.server if augmentation.domain == "encrypted" else "none"
