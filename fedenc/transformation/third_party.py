"""The third party's work: classifier, transformation network, and the bundle of both.

It is done in phases, each of which goes on where it was stopped. What a folder is being trained for
is written down in it first; a finished bundle says so itself (``run`` in ``h.json``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedenc import seeding
from fedenc.models.network import Network
from fedenc.training.config import TrainingConfig
from fedenc.training.model_files import weights_sha256
from fedenc.transformation import bundle, features
from fedenc.transformation.bundle import FOREIGN, PSI, Transformation
from fedenc.transformation.config import TransformationConfig
from fedenc.transformation.gan_step import GanConfig
from fedenc.transformation.phases import Job, Report


@dataclass(frozen=True)
class Bundles:
    """A finished bundle, as it lies in ``folder``.

    ``validation`` is what the network does to images held out of its training: see
    ``measure.collapse``. ``foreign`` is None where none was asked for.
    """

    folder: Path
    transformation: Transformation
    psi: Network
    foreign: Network | None

    @property
    def validation(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.transformation.info["validation"]
        return found


def train(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    config: TransformationConfig,
    training: TrainingConfig,
    classifier_training: TrainingConfig,
    seed: int,
    device: torch.device,
    folder: Path,
    data: Mapping[str, Any],
    psi: Network | None = None,
    foreign: Network | None = None,
    report: Report | None = None,
) -> Bundles:
    """Train a classifier and, against it, a transformation network; write their bundle.

    Phases, by the names that ``report`` hears: "classifier" (ψ on plain images), "foreign
    classifier" (another, from other random numbers, if ``config.foreign``), "transformation"; then,
    for method "gan", "provider's classifier" (on protected images: the classifier in a GAN's
    training is not the one that answers). Called again with the same arguments it goes on where it
    was stopped, and returns at once where it had finished; on a CPU with the same number of threads
    the bundle's bytes are the same.

    Args:
        images: plain, the third party's own, uint8 N×3×H×W.
        labels: int64 N.
        classes: a name for each label.
        config: the network and its loss.
        training: of the network; recipe "ito" is the paper's. Its normalisation is not used: the
            network sees pixels / 255. A GAN takes its length, batches and augmentation only.
        classifier_training: of classifiers.
        seed: of everything random. Both trainings hold out the same images for the same fraction.
        folder: of the bundle; unfinished work lies in it, too.
        data: public facts about the images, which the bundle will carry, as JSON values.
        psi: a classifier trained before, which makes its phase unnecessary.
        foreign: likewise.
        report: called with the phase and how far it is.

    Raises:
        TrainingError: arguments that do not fit, a folder that holds something else, feature
            weights that cannot be had, or a loss that diverges.
    """
    images, labels = images.cpu(), labels.cpu()
    job = Job(
        images, labels, tuple(classes), config, training, classifier_training, seed, device, folder
    )
    job.check(psi, foreign)
    # Before hours of training: whether φ can be had at all.
    needs_vgg = config.method == "unet" and config.alpha > 0 and config.features != "classifier"
    weights = None if config.feature_weights is None else Path(config.feature_weights)
    made = (folder / bundle.PARTICIPANTS / bundle.INFO).exists()
    needed = needs_vgg and not made
    phi = features.load(config.features, job.blank(), weights) if needed else None
    run = job.describe(psi, foreign, phi, data)
    if job.finished(run):
        return _load(folder)
    said = report or (lambda phase, progress: None)

    plain = psi if psi is not None else job.classifier(PSI, "classifier", images, seed, said)
    if config.foreign:
        other = seeding.derive(seed, "foreign classifier")
        foreign = foreign or job.classifier(FOREIGN, "foreign classifier", images, other, said)
    else:
        foreign = None
    if config.method == "gan":
        network, precision = job.generator(plain, said)
        source = None
    else:
        if config.alpha > 0 and phi is None:
            phi = features.load(config.features, plain)
        network, precision = job.unet(plain, phi, said)
        source = None if phi is None else phi.source.as_dict()
    info = {
        "alpha": config.alpha if config.method == "unet" else None,
        "features": source,
        "config": config.as_dict(),
        "training": (GanConfig.of(training) if config.method == "gan" else training).as_dict(),
        "precision": precision,
        "seed": seed,
        "data": dict(data),
        "trained_against": weights_sha256(plain),
        "run": run,
    }
    draft = Transformation(weights_sha256(network), {"size": list(job.size)}, network)
    answering = plain
    if config.method == "gan":
        protected = draft.to(device).protect(images)
        answering = job.classifier("provider", "provider's classifier", protected, seed, said)
    info["psi"] = weights_sha256(answering)
    info["validation"] = job.assess(draft, answering, plain)
    job.write(network, answering, foreign, info)
    return _load(folder)


def _load(folder: Path) -> Bundles:
    transformation = bundle.load_transformation(folder)
    psi, _ = bundle.load_classifier(folder)
    has_foreign = transformation.info["config"]["foreign"]
    foreign = bundle.load_classifier(folder, stem=FOREIGN)[0] if has_foreign else None
    return Bundles(folder, transformation, psi, foreign)
