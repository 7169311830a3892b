"""The folder in which a bundle is made, and goes on being made where it was stopped.

What it is being made for is written down in it first; a finished bundle says so itself (``run`` in
``h.json``).
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fedenc import documents
from fedenc.errors import TrainingError
from fedenc.files import write_atomically
from fedenc.models.network import Network
from fedenc.training import identity
from fedenc.training.cadence import Resumable, with_checkpoints
from fedenc.training.loop import Progress
from fedenc.training.model_files import load_model, save_model
from fedenc.transformation import bundle

WORK, RUN = ".unfinished", "run.json"  # what an unfinished bundle folder holds

CHECKPOINT_SECONDS = 10.0  # between two checkpoints, or more where they take long

R = TypeVar("R", bound=Resumable)


class Workspace:
    """Work in progress on the bundle of ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._work = folder / WORK

    def claim(self, run: Mapping[str, Any]) -> bool:
        """Whether the folder holds the bundle that ``run`` describes in JSON values, finished.
        Afterwards it is this bundle's to work in.

        Raises:
            TrainingError: it holds something else.
        """
        done = self._folder / bundle.PARTICIPANTS / bundle.INFO
        note = self._work / RUN
        for path in (done, note):
            if path.exists():
                self._require_same(path, run)
        if done.exists():
            self.clear()
            return True
        if self._folder.exists() and not self._folder.is_dir():
            raise TrainingError(f"{self._folder} is a file; expected a folder, or nothing")
        if not note.exists():
            if self._folder.exists() and any(self._folder.iterdir()):
                raise TrainingError(
                    f"{self._folder} is not empty and holds no bundle; name a new folder for it"
                )
            write_atomically(note, (json.dumps(run, indent=2, sort_keys=True) + "\n").encode())
        return False

    def _require_same(self, path: Path, run: Mapping[str, Any]) -> None:
        """TrainingError unless the file describes this run, as a note or in a finished bundle."""
        try:
            if path.name == RUN:
                found = documents.parse(path.read_bytes())
            else:
                found = bundle.read_info(path)["run"]
            # Where the features were not loaded again, there is nothing to compare them with.
            known = {**run, "phi": found.get("phi")} if run["phi"] is None else run
            different = identity.differences(found, known)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"{path} is not what this training wrote ({error}); use another folder"
            ) from error
        if different:
            raise TrainingError(
                f"{self._folder} holds another transformation: {different}; restore those, or use "
                "another folder"
            )

    def train(
        self, stem: str, start: Callable[[bytes | None], R], on_progress: Callable[[Progress], None]
    ) -> R:
        """Train to the end, from the last checkpoint there is; returns what ``start`` made of it.

        Raises:
            TrainingError: as ``start`` and the training; a checkpoint's error names its file.
        """
        path = self._checkpoint(stem)
        try:
            run = start(path.read_bytes() if path.exists() else None)
        except TrainingError as error:
            if not path.exists():
                raise
            raise TrainingError(f"{path}: {error}") from error
        for progress, checkpoint in with_checkpoints(run, seconds=CHECKPOINT_SECONDS):
            if checkpoint is not None:
                write_atomically(path, checkpoint)
            on_progress(progress)
        return run

    def classifier(
        self, stem: str, train: Callable[[], tuple[Network, str]]
    ) -> tuple[Network, str | None]:
        """The classifier of that stem, and the precision that it was trained in: by ``train``, now
        or before it was stopped."""
        if not (self._work / f"{stem}.json").exists():
            model, precision = train()
            save_model(self._work, model, details={"precision": precision}, stem=stem)
            self._checkpoint(stem).unlink()
        # From the file in either case, so that a run that was stopped goes on as if it had not been
        model, details = load_model(self._work, stem=stem)
        return model, details.get("precision")

    def clear(self) -> None:
        """Remove what is left of the work, where the bundle is finished."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _checkpoint(self, stem: str) -> Path:
        return self._work / f"{stem}.checkpoint"
