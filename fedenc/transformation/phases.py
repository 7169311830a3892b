"""The phases of a third party's work, and the folder in which it goes on where it was stopped."""

import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fedenc import models, seeding
from fedenc.errors import TrainingError
from fedenc.files import write_atomically
from fedenc.models.network import Network
from fedenc.training import identity, rng, validation
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Progress, fit
from fedenc.training.model_files import load_model, save_model, weights_sha256
from fedenc.training.pool import check_labels
from fedenc.transformation import bundle
from fedenc.transformation.bundle import FOREIGN, PROVIDER, PSI, Transformation
from fedenc.transformation.config import TransformationConfig
from fedenc.transformation.features import Features
from fedenc.transformation.gan import LEVELS
from fedenc.transformation.gan_step import GanConfig
from fedenc.transformation.gan_training import make_targets, train_gan
from fedenc.transformation.measure import ask, collapse
from fedenc.transformation.objective import Objective

Report = Callable[[str, Progress], None]

WORK, RUN = ".unfinished", "run.json"  # what an unfinished bundle folder holds

_REPORT_SECONDS = 5.0
_SAVE_SECONDS = 10.0  # between checkpoints, or more where writing one takes long
_SAVE_SHARE = 0.02  # of the time may go into writing them
_ASSESSED = 5000  # images at most, where none are held out


class Run(Protocol):
    """A training under way."""

    def __iter__(self) -> Iterator[Progress]: ...

    def checkpoint(self) -> bytes: ...


R = TypeVar("R", bound=Run)


@dataclass(frozen=True)
class Job:
    """One bundle to be made: its arguments, and the phases."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    config: TransformationConfig
    training: TrainingConfig
    classifier_training: TrainingConfig
    seed: int
    device: torch.device
    folder: Path

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.images.shape[2:]
        return height, width

    @property
    def work(self) -> Path:
        return self.folder / WORK

    @property
    def architecture(self) -> dict[str, Any]:
        widths = list(self.config.widths)
        return {"widths": widths if self.config.method == "unet" else widths[:LEVELS]}

    def blank(self) -> Network:
        """A classifier as it is before training."""
        return models.build(
            self.config.classifier,
            channels=3,
            classes=len(self.classes),
            size=self.size,
            seed=self.seed,
        )

    def check(self, psi: Network | None, foreign: Network | None) -> None:
        found = f"{str(self.images.dtype).removeprefix('torch.')} {list(self.images.shape)}"
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise TrainingError(f"images are {found}; expected uint8 N×3×H×W")
        check_labels(self.labels, len(self.images), len(self.classes), 1)
        with torch.device("meta"):  # whether the network takes images of this size
            network = bundle.build(self.config.method, self.architecture).eval()
            network(torch.empty(1, 3, *self.size))
        for name, given in (("psi", psi), ("foreign", foreign)):
            if given is None:
                continue
            a = given.architecture
            fits = (a.channels, a.classes, a.size, a.input) == (
                3,
                len(self.classes),
                self.size,
                "raw",
            )
            if not fits:
                raise TrainingError(
                    f"{name} takes {a.channels}×{a.size[0]}×{a.size[1]} images of {a.classes} "
                    f"classes, input {a.input}; expected 3×{self.size[0]}×{self.size[1]}, "
                    f"{len(self.classes)} classes, input raw"
                )

    def describe(
        self,
        psi: Network | None,
        foreign: Network | None,
        phi: Features | None,
        data: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What makes this bundle this bundle, as JSON values."""
        config = self.config.as_dict()
        del config["feature_weights"]  # where φ lay does not matter, only what it is
        described = {
            "seed": self.seed,
            "classes": self.classes,
            "images": len(self.images),
            "pixels": identity.digest(self.images),
            "labels": identity.digest(self.labels),
            "size": self.size,
            "phi": None if phi is None else phi.source.sha256,
            "psi": None if psi is None else weights_sha256(psi),
            "foreign": None if foreign is None else weights_sha256(foreign),
            "data": dict(data),
            **{f"transformation.{key}": value for key, value in config.items()},
            **{f"training.{key}": value for key, value in self.training.as_dict().items()},
            **{
                f"classifier_training.{key}": value
                for key, value in self.classifier_training.as_dict().items()
            },
        }
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain

    def finished(self, run: Mapping[str, Any]) -> bool:
        """Whether the folder holds this bundle; afterwards it is this bundle's to work in."""
        done = self.folder / bundle.PARTICIPANTS / bundle.INFO
        note = self.work / RUN
        for path in (done, note):
            if not path.exists():
                continue
            try:
                written = json.loads(path.read_bytes())
                found = written["run"] if path == done else written
                # Where the features were not loaded again, there is nothing to compare them with.
                known = {**run, "phi": found.get("phi")} if run["phi"] is None else run
                different = identity.differences(found, known)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise TrainingError(
                    f"{path} is not what this training wrote ({error}); use another folder"
                ) from error
            if different:
                raise TrainingError(
                    f"{self.folder} holds another transformation: {different}; restore those, or "
                    "use another folder"
                )
        if done.exists():
            shutil.rmtree(self.work, ignore_errors=True)
            return True
        if self.folder.exists() and not self.folder.is_dir():
            raise TrainingError(f"{self.folder} is a file; expected a folder, or nothing")
        if not note.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise TrainingError(
                    f"{self.folder} is not empty and holds no bundle; name a new folder for it"
                )
            write_atomically(note, (json.dumps(run, indent=2, sort_keys=True) + "\n").encode())
        return False

    def classifier(
        self, stem: str, phase: str, images: Tensor, seed: int, report: Report
    ) -> Network:
        """Train a classifier, or take the one that was.

        ``seed`` initialises it. All hold out the same images, those of the job's own seed, so that
        none is ever measured on what it was trained on.
        """
        if not (self.work / f"{stem}.json").exists():
            model = replace(self, seed=seed).blank()
            self._run(
                phase,
                stem,
                lambda state: fit(
                    model,
                    images,
                    self.labels,
                    config=self.classifier_training,
                    seed=self.seed,
                    device=self.device,
                    state=state,
                    every_seconds=_REPORT_SECONDS,
                ),
                report,
            )
            save_model(self.work, model, stem=stem)
            self._checkpoint(stem).unlink()
        # From the file in either case, so that a run that was stopped goes on as if it had not been
        return load_model(self.work, stem=stem)[0]

    def unet(self, psi: Network, phi: Features | None, report: Report) -> tuple[nn.Module, str]:
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
        run = self._run(
            "transformation",
            "h",
            lambda state: fit(
                objective,
                self.images,
                self.labels,
                config=replace(self.training, normalisation="none"),
                seed=self.seed,
                device=self.device,
                state=state,
                every_seconds=_REPORT_SECONDS,
            ),
            report,
        )
        return objective.h.cpu().eval(), run.precision

    def generator(self, classifier: Network, report: Report) -> tuple[nn.Module, str]:
        """The trained generator, on the CPU in evaluation mode, and its training's precision."""
        run = self._run(
            "transformation",
            "h",
            lambda state: train_gan(
                self.images,
                self.labels,
                make_targets(self.images, self.seed),
                classifier=copy.deepcopy(classifier),
                widths=self.config.widths,
                config=GanConfig.of(self.training),
                seed=self.seed,
                device=self.device,
                state=state,
                every_seconds=_REPORT_SECONDS,
            ),
            report,
        )
        return run.generator.cpu().eval(), run.precision

    def assess(self, h: Transformation, psi: Network, plain: Network) -> dict[str, Any]:
        """What the network does to images held out of its training, or else to some of them.

        ``plain`` is a classifier of plain images, as ``psi`` is for method "unet".
        """
        _, held_out = validation.split(self.labels, self.training.validation, self.seed)
        rows = held_out
        if rows is None:
            order = seeding.generator(self.seed, "assessment")
            rows = torch.randperm(len(self.images), generator=order)[:_ASSESSED].sort().values
        images, labels = self.images[rows], self.labels[rows]
        answers = ask(h, psi, images, labels, foreign=plain, device=self.device)
        assert answers.foreign_plain is not None
        reference = (answers.foreign_plain == labels).double().mean().item()
        return {
            "images": len(rows),
            "held_out": held_out is not None,
            **collapse(answers, labels, reference),
        }

    def write(
        self, h: nn.Module, psi: Network, foreign: Network | None, info: Mapping[str, Any]
    ) -> None:
        """Write the bundle, the participants' part last, for that is what makes it finished."""
        details = {
            "classes": self.classes,
            "transformation": weights_sha256(h),
            "data": info["data"],
            "classifier_training": self.classifier_training.as_dict(),
        }
        for stem, model in ((PSI, psi), (FOREIGN, foreign)):
            if model is not None:
                save_model(self.folder / PROVIDER, model, details=details, stem=stem)
        bundle.save_transformation(
            self.folder,
            h,
            method=self.config.method,
            architecture=self.architecture,
            size=self.size,
            classes=self.classes,
            info=info,
        )
        shutil.rmtree(self.work)

    def _run(self, phase: str, stem: str, start: Callable[[bytes | None], R], report: Report) -> R:
        """Train to the end, from the last checkpoint there is."""
        path = self._checkpoint(stem)
        try:
            run = start(path.read_bytes() if path.exists() else None)
        except TrainingError as error:
            if not path.exists():
                raise
            raise TrainingError(f"{path}: {error}") from error
        saved, pause = time.monotonic(), _SAVE_SECONDS
        for progress in run:
            report(phase, progress)
            start_of_save = time.monotonic()
            if progress.done or start_of_save - saved >= pause:
                write_atomically(path, run.checkpoint())
                saved = time.monotonic()
                pause = max(_SAVE_SECONDS, (saved - start_of_save) / _SAVE_SHARE)
        return run

    def _checkpoint(self, stem: str) -> Path:
        return self.work / f"{stem}.checkpoint"
