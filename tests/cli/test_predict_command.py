"""``fedenc predict``: the model directory that a run leaves, on image files."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fedenc import models
from fedenc.cli import app
from fedenc.errors import TrainingError
from fedenc.training.classifier import Classifier
from fedenc.training.model_files import save_model
from fedenc.training.predict import predict


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = models.build("resnet20", channels=3, classes=3, size=(32, 32), seed=4)
    save_model(tmp_path / "model", model, details={"classes": ["ant", "bee", "cat"]})
    return tmp_path / "model"


def _files(folder: Path, count: int, side: int = 32) -> tuple[list[Path], torch.Tensor]:
    pixels = np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths, torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("flip", [False, True])
def test_it_says_what_the_library_says(directory: Path, tmp_path: Path, flip: bool) -> None:
    paths, images = _files(tmp_path, 5)
    model = models.build("resnet20", channels=3, classes=3, size=(32, 32), seed=4)
    expected = predict(model, images, device=torch.device("cpu"), flip=flip)
    words = ["predict", str(directory), *map(str, paths), "--top", "3", *["--flip"] * flip]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(path) for path in paths for _ in range(3)]
    scores = {(line[0], line[1]): float(line[2]) for line in lines}
    for i, path in enumerate(paths):
        for j, name in enumerate(["ant", "bee", "cat"]):
            assert scores[str(path), name] == pytest.approx(expected[i, j].item(), abs=6e-4)
        ranked = [float(line[2]) for line in lines if line[0] == str(path)]
        assert ranked == sorted(ranked, reverse=True)


def test_one_bad_file_does_not_stop_the_rest(directory: Path, tmp_path: Path) -> None:
    (good, other), _ = _files(tmp_path, 2)
    (large,), _ = _files(tmp_path / "..", 1, side=48)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(good.read_bytes()[:60])
    asked = [good, damaged, tmp_path / "missing.png", large, other]
    done = CliRunner().invoke(app, ["predict", str(directory), *map(str, asked)])
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 2
    complaints = done.stderr.splitlines()
    assert len(complaints) == 3
    assert "missing.png does not exist" in complaints[1]
    assert "48×48" in complaints[2]
    assert "--resize" in complaints[2]
    resized = CliRunner().invoke(app, ["predict", str(directory), str(large), "--resize"])
    assert resized.exit_code == 0


def test_a_folder_without_a_model_is_one_clear_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["predict", str(tmp_path), "x.png"])
    assert isinstance(done.exception, TrainingError)
    assert "model.safetensors" in str(done.exception)


@pytest.mark.parametrize("classes", [["ant", "bee"], ["a", "b", "c", "d"], "abc", {"a": 1}, 3])
def test_names_that_do_not_fit_the_model_are_one_clear_error(
    tmp_path: Path, classes: object
) -> None:
    model = models.build("tiny", channels=3, classes=3, size=(32, 32))
    save_model(tmp_path / "model", model, details={"classes": classes})
    with pytest.raises(TrainingError, match="tells 3 classes apart, and its configuration names"):
        Classifier(tmp_path / "model")


def test_a_picture_of_the_wrong_size_costs_no_memory(directory: Path, tmp_path: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    classifier = Classifier(directory)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (guess,) = classifier([tmp_path / "bomb.png"])
    assert "12000×12000, the model takes 32×32" in guess.error
    (guess,) = Classifier(directory, resize=True)([tmp_path / "bomb.png"])
    assert "12000×12000 pixels, more than 100 million" in guess.error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"
