import json
from dataclasses import replace

import pytest
import torch

from fedenc.errors import TrainingError, TransformationError
from fedenc.training import validation
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import fit
from fedenc.training.model_files import weights_sha256
from fedenc.transformation import bundle, phases
from fedenc.transformation.bundle import load_classifier, load_transformation
from fedenc.transformation.config import TransformationConfig
from fedenc.transformation.third_party import train

CPU = torch.device("cpu")
CLASSES = ("upper left", "upper right", "lower left", "lower right")
CONFIG = TransformationConfig(alpha=0.01, widths=(4, 8), features="classifier")
TRAINING = TrainingConfig(
    epochs=2,
    batch_size=32,
    learning_rate=0.05,
    augmentation="crop-flip",
    normalisation="imagenet",
    validation=0.2,
)


def examples(count: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, brighter in the quadrant that the label names."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 128, (count, 3, 16, 16), generator=generator)
    for label in range(4):
        row, column = divmod(label, 2)
        part = images[labels == label]
        part[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 127
        images[labels == label] = part
    return images.to(torch.uint8), labels


def make(folder, config=CONFIG, images=None, labels=None, classes=CLASSES, **keywords):
    known_images, known_labels = examples()
    arguments = {
        "config": config,
        "training": TRAINING,
        "classifier_training": TRAINING,
        "seed": 1,
        "device": CPU,
        "data": {"name": "quadrants", "images": 120},
    }
    return train(
        known_images if images is None else images,
        known_labels if labels is None else labels,
        classes,
        folder=folder,
        **(arguments | keywords),
    )


def content(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "bundle"
    heard = []
    config = TransformationConfig(**CONFIG.as_dict() | {"foreign": True, "widths": (4, 8)})
    made = make(folder, config, report=lambda phase, progress: heard.append((phase, progress)))
    return made, heard


def test_a_bundle_of_both_parts_and_nothing_else(finished):
    made, heard = finished
    assert content(made.folder).keys() == {
        "participants/h.json",
        "participants/h.safetensors",
        "provider/psi.json",
        "provider/psi.safetensors",
        "provider/foreign.json",
        "provider/foreign.safetensors",
    }
    phases_heard = list(dict.fromkeys(phase for phase, _ in heard))
    assert phases_heard == ["classifier", "foreign classifier", "transformation"]
    assert [p.epoch for phase, p in heard if phase == "transformation"] == [1, 2]
    h = load_transformation(made.folder)
    assert h == made.transformation
    psi, details = load_classifier(made.folder)
    assert details["classes"] == list(CLASSES)
    assert details["transformation"] == h.digest
    assert h.info["psi"] == h.info["trained_against"] == weights_sha256(psi)
    assert h.info["data"] == {"name": "quadrants", "images": 120}
    assert h.info["features"]["origin"] == "psi, first 6 layers"
    assert h.info["config"]["alpha"] == 0.01
    assert (h.size, h.classes) == ((16, 16), CLASSES)
    other, _ = load_classifier(made.folder, stem=bundle.FOREIGN)
    assert weights_sha256(other) == weights_sha256(made.foreign) != weights_sha256(psi)
    assert made.validation["images"] == 24
    assert made.validation["held_out"]


def test_a_finished_bundle_is_not_made_again(finished):
    made, _ = finished
    before = content(made.folder)
    config = TransformationConfig(**made.transformation.info["config"] | {"widths": (4, 8)})

    def never(phase, progress):
        raise AssertionError(phase)

    again = make(made.folder, config, report=never)
    assert again.transformation == made.transformation
    assert content(made.folder) == before


def test_stopped_anywhere_it_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(phases, "_REPORT_SECONDS", 1e-9)
    monkeypatch.setattr(phases, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(phases, "_SAVE_SHARE", 1.0)
    make(tmp_path / "whole")
    expected = content(tmp_path / "whole")

    class Stopped(Exception):
        pass

    steps, stops = [], 0
    while stops < 20:
        heard = 0

        def stop(phase, progress):
            nonlocal heard
            heard += 1
            steps.append((phase, progress.step))
            if heard > 3:
                raise Stopped

        try:
            make(tmp_path / "stopped", report=stop)
            break
        except Stopped:
            stops += 1
            assert not (tmp_path / "stopped" / bundle.PARTICIPANTS).exists()
    assert stops >= 3
    assert content(tmp_path / "stopped") == expected
    # a step that was saved is not done again, but for the one that was reported and not yet saved
    assert len(steps) <= 12 + 2 * stops


def test_a_folder_of_something_else_is_refused(finished, tmp_path, monkeypatch):
    made, _ = finished
    with pytest.raises(TrainingError, match=r"holds another transformation: .*alpha was 0\.01"):
        make(made.folder, TransformationConfig(alpha=0.5, widths=(4, 8), features="classifier"))
    with pytest.raises(TrainingError, match="seed was 1 and is 2"):
        make(made.folder, seed=2)

    class Stopped(Exception):
        pass

    def stop(phase, progress):
        raise Stopped

    with pytest.raises(Stopped):
        make(tmp_path / "begun", report=stop)
    images, labels = examples()
    with pytest.raises(TrainingError, match=r"begun holds another .*pixels was .*another folder"):
        make(tmp_path / "begun", images=255 - images)
    with pytest.raises(TrainingError, match="labels was"):
        make(tmp_path / "begun", labels=labels.flip(0))
    (tmp_path / "begun" / phases.WORK / phases.RUN).write_text("[1]")
    with pytest.raises(TrainingError, match="is not what this training wrote"):
        make(tmp_path / "begun")
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="is a file; expected a folder"):
        make(tmp_path / "file")


def test_a_damaged_checkpoint_is_named(tmp_path):
    class Stopped(Exception):
        pass

    def stop(phase, progress):
        if phase == "transformation":
            raise Stopped

    with pytest.raises(Stopped):
        make(tmp_path, report=stop)
    path = tmp_path / phases.WORK / "h.checkpoint"
    path.write_bytes(b"junk")
    with pytest.raises(TrainingError, match=r"h\.checkpoint: checkpoint of 4 bytes is damaged"):
        make(tmp_path)


def test_a_classifier_that_is_there_is_taken_and_left_alone(finished, tmp_path):
    made, _ = finished
    psi = made.psi.train()
    digest = weights_sha256(psi)
    heard = []
    again = make(tmp_path / "again", psi=psi, report=lambda phase, progress: heard.append(phase))
    assert set(heard) == {"transformation"}
    assert again.transformation == made.transformation  # the same h, against the same psi
    assert weights_sha256(psi) == weights_sha256(again.psi) == digest
    assert again.foreign is None
    with pytest.raises(TrainingError, match="another transformation: psi was None"):
        make(
            made.folder,
            psi=psi,
            config=TransformationConfig(**made.transformation.info["config"] | {"widths": (4, 8)}),
        )
    with pytest.raises(TrainingError, match=r"psi takes .* of 4 classes.*expected .* 3 classes"):
        make(tmp_path / "x", psi=psi, classes=CLASSES[:3], labels=torch.arange(120) % 3)


def test_without_alpha_no_features_are_needed_or_named(tmp_path):
    config = TransformationConfig(alpha=0, widths=(4, 8), feature_weights="none.pth")
    made = make(tmp_path, config, psi=None)
    assert made.transformation.info["features"] is None
    assert made.transformation.info["alpha"] == 0


def test_without_a_split_some_training_images_are_assessed(tmp_path):
    training = TrainingConfig(epochs=1, batch_size=32)
    made = make(tmp_path, training=training, classifier_training=training)
    assert made.validation["images"] == 120
    assert not made.validation["held_out"]


def test_features_that_cannot_be_had_stop_it_before_any_training(tmp_path):
    config = TransformationConfig(widths=(4, 8), feature_weights=str(tmp_path / "vgg.pth"))
    heard = []
    with pytest.raises(TrainingError, match=r"vgg\.pth cannot be read"):
        make(tmp_path / "b", config, report=lambda phase, progress: heard.append(phase))
    assert not heard
    assert not (tmp_path / "b").exists()


def test_images_that_do_not_fit_are_refused_before_any_training(tmp_path):
    images, labels = examples()
    for bad, message in (
        ({"images": images[:, :1]}, r"uint8 \[120, 1, 16, 16\]; expected uint8 N×3×H×W"),
        ({"images": images.float()}, "float32"),
        ({"images": images[..., :15]}, "multiples of 2"),
        ({"labels": labels[:-1]}, r"int64 \[119\]; expected int64 \[120\]"),
        ({"classes": CLASSES[:3]}, r"labels run from 0 to 3; the model has 0\.\.2"),
    ):
        with pytest.raises(TrainingError, match=message):
            make(tmp_path / "b", **bad)
    assert not (tmp_path / "b").exists()


def test_a_gan_is_a_bundle_like_any_other(tmp_path):
    config = TransformationConfig(method="gan", widths=(4, 8))
    heard = []
    made = make(tmp_path, config, report=lambda phase, progress: heard.append(phase))
    assert list(dict.fromkeys(heard)) == ["classifier", "transformation", "provider's classifier"]
    h = load_transformation(tmp_path)
    assert h.params() == {"method": "gan", "digest": h.digest}
    images, _ = examples()
    assert h.protect(images[:5]).shape == (5, 3, 16, 16)
    assert h.info["alpha"] is None
    assert h.info["psi"] == weights_sha256(made.psi) != h.info["trained_against"]
    other = tmp_path / "other"
    make(other, config)
    assert content(other) == {n: b for n, b in content(tmp_path).items() if "other" not in n}


def test_a_bundle_whose_parts_were_swapped_is_noticed(finished, tmp_path):
    made, _ = finished
    made_again = make(tmp_path / "b", seed=7)
    assert made_again.transformation != made.transformation
    for name in ("psi.json", "psi.safetensors"):
        theirs = (made.folder / bundle.PROVIDER / name).read_bytes()
        (tmp_path / "b" / bundle.PROVIDER / name).write_bytes(theirs)
    with pytest.raises(TransformationError, match="same bundle"):
        make(tmp_path / "b", seed=7)


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


def test_all_classifiers_hold_out_the_same_images(tmp_path, monkeypatch):
    """Else what is held out from one would be measured on another that was trained on it."""
    held_out = []

    def recorded(model, images, labels, *, seed, config, **keywords):
        held_out.append(validation.split(labels, config.validation, seed)[1].tolist())
        return fit(model, images, labels, seed=seed, config=config, **keywords)

    monkeypatch.setattr(phases, "fit", recorded)
    make(tmp_path / "bundle", replace(CONFIG, foreign=True))
    assert len(held_out) >= 2
    assert all(rows == held_out[0] for rows in held_out)
