import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedenc import documents
from fedenc.errors import TrainingError, TransformationError
from fedenc.training import cadence, validation
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Progress, Reports, fit
from fedenc.training.model_files import weights_sha256
from fedenc.training.precision import resolve
from fedenc.training.training_set import TrainingSet
from fedenc.transformation import bundle, third_party, workspace
from fedenc.transformation.bundle import Bundle, load_classifier, load_transformation
from fedenc.transformation.config import TransformationConfig
from fedenc.transformation.third_party import train

CPU = torch.device("cpu")
CLASSES = ("upper left", "upper right", "lower left", "lower right")
CONFIG = TransformationConfig(widths=(4, 8), features="classifier", foreign=False)
COMPLETE = replace(CONFIG, foreign=True)
TRAINING = TrainingConfig(
    epochs=2,
    batch_size=32,
    learning_rate=0.05,
    augmentation="crop-flip",
    normalisation="imagenet",
    validation=0.2,
)


def examples(count: int = 120) -> TrainingSet:
    """Noise, brighter in the quadrant that the label names."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 128, (count, 3, 8, 8), generator=generator)
    for label in range(4):
        row, column = divmod(label, 2)
        part = images[labels == label]
        part[:, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 127
        images[labels == label] = part
    return TrainingSet(images.to(torch.uint8), labels)


IMAGES, LABELS = examples().images, examples().labels


def make(folder: Path, config: TransformationConfig = CONFIG, **changes: Any) -> Bundle:
    arguments = {
        "training": TRAINING,
        "classifier_training": TRAINING,
        "seed": 1,
        "device": CPU,
        "data": {"name": "quadrants", "images": 120},
        "images": IMAGES,
        "labels": LABELS,
        "classes": CLASSES,
    } | changes
    data = TrainingSet(arguments.pop("images"), arguments.pop("labels"))
    return train(data, arguments.pop("classes"), config=config, folder=folder, **arguments)


class Stopped(Exception):
    pass


def stop(phase: str, progress: Progress) -> None:
    raise Stopped


def content(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A bundle of everything, and what was told on the way."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    told = []
    made = make(folder, COMPLETE, on_progress=lambda *progress: told.append(progress))
    return made, told


def test_a_bundle_of_both_parts_and_nothing_else(finished):
    made, told = finished
    assert content(made.folder).keys() == {
        "participants/h.json",
        "participants/h.safetensors",
        "provider/psi.json",
        "provider/psi.safetensors",
        "provider/foreign.json",
        "provider/foreign.safetensors",
    }
    phases = list(dict.fromkeys(phase for phase, _ in told))
    assert phases == ["classifier", "foreign classifier", "transformation"]
    assert [p.epoch for phase, p in told if phase == "transformation"] == [1, 2]
    h = load_transformation(made.folder)
    assert h == made.transformation
    psi, details = load_classifier(made.folder)
    assert details["classes"] == list(CLASSES)
    assert details["transformation"] == h.digest
    assert details["precision"] == h.info["precision"] == resolve("auto", CPU)
    assert h.info["psi"] == h.info["trained_against"] == weights_sha256(psi)
    assert h.info["data"] == {"name": "quadrants", "images": 120}
    assert h.info["features"]["origin"] == "psi, first 6 layers"
    assert h.info["config"]["alpha"] == 0.01
    assert (h.size, h.classes) == ((8, 8), CLASSES)
    other, facts = load_classifier(made.folder, stem=bundle.FOREIGN)
    assert facts["precision"] == resolve("auto", CPU)
    assert weights_sha256(other) == weights_sha256(made.foreign) != weights_sha256(psi)
    assert made.validation["images"] == 24
    assert made.validation["held_out"]


def test_a_finished_bundle_is_not_made_again(finished):
    made, _ = finished
    before = content(made.folder)
    again = make(made.folder, COMPLETE, on_progress=stop)
    assert again.transformation == made.transformation
    assert content(made.folder) == before


def test_stopped_anywhere_it_ends_with_the_same_bytes(finished, tmp_path, monkeypatch):
    made, _ = finished
    monkeypatch.setattr(third_party, "REPORTS", Reports(steps=1))
    monkeypatch.setattr(workspace, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(cadence, "SHARE", 1e9)
    folder, steps, stops = tmp_path / "stopped", [], 0
    while stops < 20:
        begun = len(steps)

        def stop_at_the_fourth(phase, progress, begun=begun):
            steps.append((phase, progress.step))
            if len(steps) - begun > 3:
                raise Stopped

        try:
            make(folder, COMPLETE, on_progress=stop_at_the_fourth)
            break
        except Stopped:
            stops += 1
            assert not (folder / bundle.PARTICIPANTS).exists()
    assert stops >= 3
    assert content(folder) == content(made.folder)
    # What was told was saved: no step is done twice, but the last of a phase is told again.
    assert len(steps) <= 3 * 6 + stops


def test_a_folder_of_something_else_is_refused(finished, tmp_path):
    made, _ = finished
    with pytest.raises(TrainingError, match=r"holds another transformation: .*alpha was 0\.01"):
        make(made.folder, replace(COMPLETE, alpha=0.5))
    with pytest.raises(TrainingError, match="seed was 1 and is 2"):
        make(made.folder, COMPLETE, seed=2)
    with pytest.raises(Stopped):
        make(tmp_path / "begun", on_progress=stop)
    with pytest.raises(TrainingError, match=r"begun holds another .*pixels was .*another folder"):
        make(tmp_path / "begun", images=255 - IMAGES)
    with pytest.raises(TrainingError, match="labels was"):
        make(tmp_path / "begun", labels=LABELS.flip(0))
    (tmp_path / "begun" / workspace.WORK / workspace.RUN).write_text("[1]")
    with pytest.raises(TrainingError, match="is not what this training wrote"):
        make(tmp_path / "begun")
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="is a file; expected a folder"):
        make(tmp_path / "file")


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    def stop_at_the_network(phase, progress):
        if phase == "transformation":
            raise Stopped

    psi = finished[0].psi
    with pytest.raises(Stopped):
        make(tmp_path, psi=psi, on_progress=stop_at_the_network)
    path = tmp_path / workspace.WORK / "h.checkpoint"
    path.write_bytes(b"junk")
    with pytest.raises(TrainingError, match=r"h\.checkpoint: checkpoint of 4 bytes is damaged"):
        make(tmp_path, psi=psi)


def test_a_classifier_that_is_there_is_taken_and_left_alone(finished, tmp_path):
    made, _ = finished
    psi = made.psi.train()
    digest = weights_sha256(psi)
    told = []
    again = make(tmp_path / "again", psi=psi, on_progress=lambda phase, _: told.append(phase))
    assert set(told) == {"transformation"}
    assert again.transformation == made.transformation  # the same h, against the same psi
    assert weights_sha256(psi) == weights_sha256(again.psi) == digest
    assert again.foreign is None
    with pytest.raises(TrainingError, match="another transformation: psi was None"):
        make(made.folder, COMPLETE, psi=psi)
    with pytest.raises(TrainingError, match=r"psi takes .* of 4 classes.*expected .* 3 classes"):
        make(tmp_path / "x", psi=psi, classes=CLASSES[:3], labels=torch.arange(120) % 3)


def test_without_alpha_no_features_and_without_a_split_some_images(finished, tmp_path):
    """Of which neither the former are needed or named, nor the latter held out."""
    config = TransformationConfig(alpha=0, widths=(4, 8), feature_weights="none.pth", foreign=False)
    training = TrainingConfig(epochs=1, batch_size=32)
    made = make(tmp_path, config, psi=finished[0].psi, training=training)
    assert made.transformation.info["features"] is None
    assert made.transformation.info["alpha"] == 0
    assert made.validation["images"] == 120
    assert not made.validation["held_out"]


def test_features_that_cannot_be_had_stop_it_before_any_training(tmp_path):
    config = TransformationConfig(widths=(4, 8), feature_weights=str(tmp_path / "vgg.pth"))
    with pytest.raises(TrainingError, match=r"vgg\.pth cannot be read"):
        make(tmp_path / "b", config, on_progress=stop)
    assert not (tmp_path / "b").exists()


def test_images_that_do_not_fit_are_refused_before_any_training(tmp_path):
    for bad, message in (
        ({"images": IMAGES[:, :1]}, r"uint8 \[120, 1, 8, 8\]; expected uint8 N×3×H×W"),
        ({"images": IMAGES.float()}, "float32"),
        ({"images": IMAGES[..., :7]}, "multiples of 2"),
        ({"labels": LABELS[:-1]}, r"int64 \[119\]; expected int64 \[120\]"),
        ({"classes": CLASSES[:3]}, r"labels run from 0 to 3; the model has 0\.\.2"),
    ):
        with pytest.raises(TrainingError, match=message):
            make(tmp_path / "b", on_progress=stop, **bad)
    assert not (tmp_path / "b").exists()


def test_a_gan_is_a_bundle_like_any_other_and_goes_on_like_one(finished, tmp_path):
    config = TransformationConfig(method="gan", widths=(4, 8), foreign=False)
    told, psi = [], finished[0].psi
    made = make(
        tmp_path / "whole", config, psi=psi, on_progress=lambda phase, _: told.append(phase)
    )
    assert list(dict.fromkeys(told)) == ["transformation", "provider's classifier"]
    h = load_transformation(tmp_path / "whole")
    assert h.params() == {"method": "gan", "digest": h.digest}
    assert h.protect(IMAGES[:5]).shape == (5, 3, 8, 8)
    assert h.info["alpha"] is None
    assert h.info["psi"] == weights_sha256(made.psi) != h.info["trained_against"]

    def stop_after_a_checkpoint(phase, progress):
        if progress.done:
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            make(tmp_path / "again", config, psi=psi, on_progress=stop_after_a_checkpoint)
    make(tmp_path / "again", config, psi=psi)
    assert content(tmp_path / "again") == content(tmp_path / "whole")


def test_a_bundle_whose_parts_were_swapped_is_noticed(finished, tmp_path):
    made, _ = finished
    folder = shutil.copytree(made.folder, tmp_path / "b")
    told = folder / bundle.PROVIDER / "psi.json"
    content = documents.unsealed(told.read_text())
    content["details"]["transformation"] = "0" * 64
    told.write_text(json.dumps(documents.sealed(content)))
    with pytest.raises(TransformationError, match="same bundle"):
        make(folder, COMPLETE)


def test_no_path_of_this_machine_is_published(finished):
    made, _ = finished
    for name, data in content(made.folder).items():
        if name.endswith(".json"):
            assert str(made.folder.parent) not in json.dumps(json.loads(data))


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "mine.txt").write_text("dear to me")
    with pytest.raises(TrainingError, match="not empty and holds no bundle"):
        make(tmp_path)
    assert (tmp_path / "training" / "mine.txt").exists()


def test_all_trainings_hold_out_the_same_images(finished, tmp_path, monkeypatch):
    """Else what is held out from one would be measured on another that was trained on it."""
    held_out = []

    def recorded(model, training_set, config, *, seed, **keywords):
        held_out.append(validation.split(training_set.labels, config.validation, seed)[1].tolist())
        return fit(model, training_set, config, seed=seed, **keywords)

    monkeypatch.setattr(third_party, "fit", recorded)
    make(tmp_path / "bundle", replace(COMPLETE, alpha=0))
    assert len(held_out) == 3
    assert all(rows == held_out[0] for rows in held_out)
