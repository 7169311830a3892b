"""The third party's work: it trains classifiers and a transformation network, and bundles them.

It is done in phases, each of which goes on where it was stopped; see ``workspace``.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedenc import models, seeding
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.training import identity, rng, validation
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Progress, Reports, fit
from fedenc.training.model_files import save_model, weights_sha256
from fedenc.training.training_set import TrainingSet, check_labels
from fedenc.transformation import bundle, features
from fedenc.transformation.bundle import FOREIGN, PROVIDER, PSI, Bundle, Transformation
from fedenc.transformation.config import TransformationConfig
from fedenc.transformation.features import Features
from fedenc.transformation.gan import LEVELS, Generator
from fedenc.transformation.gan_training import GanConfig, make_targets, train_gan
from fedenc.transformation.measure import ask, collapse
from fedenc.transformation.objective import Objective
from fedenc.transformation.workspace import Workspace

OnProgress = Callable[[str, Progress], None]

REPORTS = Reports(seconds=5.0)
_ASSESSED = 5000  # images at most, where none are held out


def train(
    training_set: TrainingSet,
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
    on_progress: OnProgress = lambda phase, progress: None,
) -> Bundle:
    """Train a classifier and, against it, a transformation network; write their bundle.

    Phases, by the names that ``on_progress`` is told: "classifier" (ψ on plain images), "foreign
    classifier" (another, from other random numbers, if ``config.foreign``), "transformation"; then,
    for method "gan", "provider's classifier" (on protected images: the classifier in a GAN's
    training is not the one that answers). Called again with the same arguments it goes on where it
    was stopped, and returns at once where it had finished; on a CPU with the same number of threads
    the bundle's bytes are the same.

    Args:
        training_set: the third party's own plain images, uint8 N×3×H×W, one view of each.
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
        on_progress: called with the phase and how far it is.

    Raises:
        TrainingError: arguments that do not fit, a folder that holds something else, feature
            weights that cannot be had, or a loss that diverges.
    """
    mine = TrainingSet(training_set.images.cpu(), training_set.labels.cpu(), training_set.views)
    job = _Job(
        training_set=mine,
        classes=tuple(classes),
        config=config,
        training=training,
        classifier_training=classifier_training,
        seed=seed,
        device=device,
        work=Workspace(folder),
        on_progress=on_progress,
    )
    job.check(psi=psi, foreign=foreign)
    # Before hours of training: whether φ can be had at all.
    needs_vgg = config.method == "unet" and config.alpha > 0 and config.features != "classifier"
    made = (folder / bundle.PARTICIPANTS / bundle.INFO).exists()
    phi = job.features(job.blank(seed)) if needs_vgg and not made else None
    run = job.describe(phi, data, psi=psi, foreign=foreign)
    if job.work.claim(run):
        return bundle.load_bundle(folder)

    # Those that are given do not tell the precision they were trained in.
    precisions: dict[str, str | None] = dict.fromkeys((PSI, FOREIGN))
    if psi is None:
        plain, precisions[PSI] = job.classifier(PSI, "classifier", mine, seed)
    else:
        plain = psi
    if not config.foreign:
        foreign = None
    elif foreign is None:
        other = seeding.derive(seed, "foreign classifier")
        foreign, precisions[FOREIGN] = job.classifier(FOREIGN, "foreign classifier", mine, other)
    network: nn.Module
    if config.method == "gan":
        network, precision = job.generator(plain)
    else:
        if config.alpha > 0 and phi is None:
            phi = job.features(plain)
        network, precision = job.unet(plain, phi)
    draft = Transformation(weights_sha256(network), {"size": list(job.size)}, network)
    answering = plain
    if config.method == "gan":
        protected = TrainingSet(draft.to(device).protect(mine.images), mine.labels)
        answering, precisions[PSI] = job.classifier(
            "provider", "provider's classifier", protected, seed
        )
    info = {
        "alpha": config.alpha if config.method == "unet" else None,
        "features": None if phi is None else phi.source.as_dict(),
        "config": config.as_dict(),
        "training": (GanConfig.of(training) if config.method == "gan" else training).as_dict(),
        "precision": precision,
        "seed": seed,
        "data": dict(data),
        "trained_against": weights_sha256(plain),
        "run": run,
        "psi": weights_sha256(answering),
        "validation": job.assess(draft, answering, plain),
    }
    details = {
        "classes": job.classes,
        "transformation": draft.digest,
        "data": info["data"],
        "classifier_training": classifier_training.as_dict(),
    }
    # The participants' part last, for that is what makes a bundle finished
    for stem, model in ((PSI, answering), (FOREIGN, foreign)):
        if model is not None:
            told = details | {"precision": precisions[stem]}
            save_model(folder / PROVIDER, model, details=told, stem=stem)
    bundle.save_transformation(
        folder,
        network,
        method=config.method,
        architecture=job.architecture,
        size=job.size,
        classes=job.classes,
        info=info,
    )
    job.work.clear()
    return bundle.load_bundle(folder)


@dataclass(frozen=True)
class _Job:
    """One bundle to be made: what ``train`` was told, and its phases."""

    training_set: TrainingSet
    classes: tuple[str, ...]
    config: TransformationConfig
    training: TrainingConfig
    classifier_training: TrainingConfig
    seed: int
    device: torch.device
    work: Workspace
    on_progress: OnProgress

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.training_set.images.shape[2:]
        return height, width

    @property
    def architecture(self) -> dict[str, Any]:
        widths = list(self.config.widths)
        return {"widths": widths if self.config.method == "unet" else widths[:LEVELS]}

    def blank(self, seed: int) -> Network:
        """A classifier as it is before training."""
        return models.build(
            self.config.classifier,
            channels=3,
            classes=len(self.classes),
            size=self.size,
            seed=seed,
        )

    def features(self, psi: Network) -> Features:
        weights = self.config.feature_weights
        return features.load(self.config.features, psi, None if weights is None else Path(weights))

    def check(self, **given: Network | None) -> None:
        """TrainingError unless images, network and the classifiers that are given fit together."""
        images, labels = self.training_set.images, self.training_set.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise TrainingError(f"images are {found}; expected uint8 N×3×H×W")
        check_labels(labels, len(images), len(self.classes), 1)
        with torch.device("meta"):  # whether the network takes images of this size
            network = bundle.build(self.config.method, self.architecture).eval()
            network(torch.empty(1, 3, *self.size))
        wanted = (3, len(self.classes), self.size, "raw")
        for name, model in given.items():
            if model is None:
                continue
            a = model.architecture
            if (a.channels, a.classes, a.size, a.input) != wanted:
                raise TrainingError(
                    f"{name} takes {a.channels}×{a.size[0]}×{a.size[1]} images of {a.classes} "
                    f"classes, input {a.input}; expected 3×{self.size[0]}×{self.size[1]}, "
                    f"{len(self.classes)} classes, input raw"
                )

    def describe(
        self, phi: Features | None, data: Mapping[str, Any], **given: Network | None
    ) -> dict[str, Any]:
        """What makes this bundle this bundle, as JSON values."""
        settings = {
            "transformation": self.config.as_dict(),
            "training": self.training.as_dict(),
            "classifier_training": self.classifier_training.as_dict(),
        }
        del settings["transformation"]["feature_weights"]  # where φ lay; what it is, is below
        described = {
            "seed": self.seed,
            "classes": self.classes,
            "images": len(self.training_set.images),
            "pixels": identity.digest(self.training_set.images),
            "labels": identity.digest(self.training_set.labels),
            "size": self.size,
            "phi": None if phi is None else phi.source.sha256,
            "data": dict(data),
            **{n: None if model is None else weights_sha256(model) for n, model in given.items()},
            **{
                f"{of}.{key}": value for of, part in settings.items() for key, value in part.items()
            },
        }
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain

    def classifier(
        self, stem: str, phase: str, training_set: TrainingSet, seed: int
    ) -> tuple[Network, str | None]:
        """Train a classifier, or take the one that was; and the precision of its training.

        ``seed`` initialises it. All hold out the same images, those of the job's own seed, so that
        none is ever measured on what it was trained on.
        """

        def trained() -> tuple[Network, str]:
            model, config = self.blank(seed), self.classifier_training
            return model, self._fit(phase, stem, model, training_set, config)

        return self.work.classifier(stem, trained)

    def unet(self, psi: Network, phi: Features | None) -> tuple[nn.Module, str]:
        """The trained U-Net, on the CPU in evaluation mode, and the precision of its training."""
        with rng.seeded(self.seed, "initialisation", "unet"):
            h = bundle.build("unet", self.architecture)
        widths = "-".join(map(str, self.config.widths))
        source = "none" if phi is None else phi.source.sha256[:12]
        name = (
            f"unet {widths} with alpha {self.config.alpha:g}, features {source}, "
            f"psi {weights_sha256(psi)[:12]}"
        )
        objective = Objective(h, psi, phi, alpha=self.config.alpha, name=name)
        config = replace(self.training, normalisation="none")
        precision = self._fit("transformation", "h", objective, self.training_set, config)
        return objective.h.cpu().eval(), precision

    def generator(self, classifier: Network) -> tuple[Generator, str]:
        """The trained generator, on the CPU in evaluation mode, and its training's precision."""
        targets = make_targets(self.training_set.images, self.seed)
        run = self.work.train(
            "h",
            lambda state: train_gan(
                self.training_set,
                targets,
                classifier=copy.deepcopy(classifier),
                widths=self.config.widths,
                config=GanConfig.of(self.training),
                seed=self.seed,
                device=self.device,
                state=state,
                reports=REPORTS,
            ),
            lambda progress: self.on_progress("transformation", progress),
        )
        return run.model.cpu().eval(), run.precision

    def _fit(
        self,
        phase: str,
        stem: str,
        model: Network,
        training_set: TrainingSet,
        config: TrainingConfig,
    ) -> str:
        """Train in place; the precision that it was trained in."""
        run = self.work.train(
            stem,
            lambda state: fit(
                model,
                training_set,
                config,
                seed=self.seed,
                device=self.device,
                state=state,
                reports=REPORTS,
            ),
            lambda progress: self.on_progress(phase, progress),
        )
        return run.precision

    def assess(self, h: Transformation, psi: Network, plain: Network) -> dict[str, Any]:
        """What the network does to images held out of its training, or else to some of them.

        ``plain`` is a classifier of plain images, as ``psi`` is for method "unet".
        """
        images, labels = self.training_set.images, self.training_set.labels
        _, held_out = validation.split(labels, self.training.validation, self.seed)
        rows = held_out
        if rows is None:
            order = seeding.generator(self.seed, "assessment")
            rows = torch.randperm(len(images), generator=order)[:_ASSESSED].sort().values
        shown, truth = images[rows], labels[rows]
        answers = ask(h, psi, shown, truth, foreign=plain, device=self.device)
        assert answers.foreign_plain is not None
        reference = (answers.foreign_plain == truth).double().mean().item()
        return {
            "images": len(rows),
            "held_out": held_out is not None,
            **collapse(answers, truth, reference),
        }
