"""From a scenario to the library's network, training configuration and run."""

from collections.abc import Mapping

import torch

from fedenc import models
from fedenc.models.network import Network
from fedenc.plugins import Parameter
from fedenc.scenario import ProviderView
from fedenc.scenario.sections import Augmentation, Model, Training
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Reports, Run, Worker, fit
from fedenc.training.model_files import ModelFiles, pack_model
from fedenc.training.recipes import recipe
from fedenc.training.training_set import TrainingSet
from server.trainer import ReceivedPool


def network(
    model: Model,
    shape: tuple[int, int, int],
    classes: int,
    seed: int,
    *,
    cipher: str,
    cipher_params: Mapping[str, Parameter],
) -> Network:
    """The scenario's network, untrained, for images of ``shape`` (C, H, W) under a cipher.

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
        cipher=cipher,
        cipher_params=cipher_params,
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


def begin(
    view: ProviderView,
    pool: ReceivedPool,
    device: torch.device,
    state: bytes | None,
    reports: Reports,
    worker: Worker,
) -> Run[Network]:
    """The provider's training on a pool, from the beginning or from a checkpoint.

    Raises:
        TrainingError: what is wanted does not fit together, or ``state`` is another run's.
    """
    method = server_method(view.augmentation)
    return fit(
        network(
            view.model,
            view.shape,
            len(view.classes),
            view.seed,
            cipher=view.cipher,
            cipher_params=view.cipher_params,
        ),
        TrainingSet(pool.images, pool.labels, view.views),
        training_config(view.training, view.augmentation, method=method),
        seed=view.seed,
        device=device,
        state=state,
        reports=reports,
        worker=worker,
    )


def with_model(view: ProviderView, model: Model | None) -> ProviderView:
    """The view with another model, if there is one."""
    return view if model is None else view.model_copy(update={"model": model})


def model_files(model: Network, view: ProviderView, precision: str) -> tuple[ModelFiles, str]:
    """The files of a model that was trained in that precision, and the SHA-256 of its weights."""
    return pack_model(model, details={"classes": list(view.classes), "precision": precision})
