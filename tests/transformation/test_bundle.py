import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc import documents, models
from fedenc.errors import TransformationError
from fedenc.training import rng
from fedenc.training.model_files import save_model, weights_sha256
from fedenc.transformation import bundle
from fedenc.transformation.bundle import (
    FOREIGN,
    PARTICIPANTS,
    PROVIDER,
    PSI,
    load_classifier,
    load_transformation,
)

CLASSES = ("cat", "dog", "ship")


def network(seed: int = 0) -> torch.nn.Module:
    with rng.seeded(seed, "test bundle"):
        made = bundle.build("unet", {"widths": (4, 8)})
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return made


def write(folder, seed: int = 0) -> bundle.Transformation:
    made = bundle.save_transformation(
        folder,
        network(seed),
        method="unet",
        architecture={"widths": [4, 8]},
        size=(16, 16),
        classes=CLASSES,
        info={"alpha": 0.01},
    )
    psi = models.build("resnet20", channels=3, classes=3, size=(16, 16), seed=seed)
    details = {"classes": list(CLASSES), "transformation": made.digest}
    save_model(folder / PROVIDER, psi, details=details, stem=PSI)
    return made


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    write(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bundle")


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)


def test_what_is_written_comes_back_from_the_bundle_and_from_each_part(folder):
    written = write(folder)
    images = pictures(20)
    for place in (folder, folder / PARTICIPANTS):
        loaded = load_transformation(place)
        assert loaded == written
        assert loaded.digest == weights_sha256(loaded.network)
        assert (loaded.size, loaded.classes) == ((16, 16), CLASSES)
        assert loaded.info["alpha"] == 0.01
        assert loaded.params() == {"method": "unet", "digest": loaded.digest}
        assert torch.equal(loaded.protect(images), written.protect(images))
    for place in (folder, folder / PROVIDER):
        psi, details = load_classifier(place)
        assert psi.architecture.classes == 3
        bundle.require_pair(loaded, details)


def test_a_bundle_holds_no_pickle_and_equal_ones_are_equal_bytes(folder, tmp_path):
    files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {p.as_posix() for p in files} == {
        "participants/h.safetensors",
        "participants/h.json",
        "provider/psi.safetensors",
        "provider/psi.json",
    }
    for path, content in files.items():
        assert path.suffix in (".safetensors", ".json")
        assert not content.startswith((b"PK", b"\x80"))  # archives of torch.save, pickles
    write(tmp_path / "again")
    for path, content in files.items():
        assert (tmp_path / "again" / path).read_bytes() == content


def test_protect_rounds_what_the_network_says(folder):
    h = load_transformation(folder)
    images = pictures(20)
    protected, outputs = h.protect(images), h.transform(images)
    assert protected.dtype == torch.uint8
    assert torch.equal(protected, (outputs * 255).round().to(torch.uint8))
    with torch.no_grad():
        expected = network().eval()(images / 255)
    assert torch.allclose(outputs, expected, atol=1e-6)
    assert outputs.min() >= 0
    assert outputs.max() <= 1
    assert not torch.equal(protected, images)
    assert h.protect(images[:0]).shape == (0, 3, 16, 16)


@settings(max_examples=20, deadline=None)
@given(chosen=st.lists(st.integers(0, 39), min_size=1, max_size=45))
def test_no_image_depends_on_its_neighbours(original, chosen):
    h = load_transformation(original)
    images = pictures(40)
    assert torch.equal(h.protect(images[chosen]), h.protect(images)[chosen])


def test_another_device_is_another_copy(folder):
    h = load_transformation(folder)
    moved = h.to(torch.device("cpu"))
    assert moved == h
    assert moved.network is not h.network
    assert torch.equal(moved.protect(pictures(3)), h.protect(pictures(3)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"3×32×32; .* was trained on 3×16×16"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), r"1×16×16; .* convert and resize"),
        (torch.zeros(2, 3, 16, 16), r"float32 2×3×16×16; expected uint8"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), r"uint8 3×16×16; expected uint8 N×3×H×W"),
    ],
)
def test_images_that_do_not_fit_are_refused(original, images, message):
    with pytest.raises(TransformationError, match=message):
        load_transformation(original).protect(images)


def test_other_classes_are_refused(original):
    h = load_transformation(original)
    h.require_classes(CLASSES)
    with pytest.raises(TransformationError, match=r"2 classes \(cat, dog\); .* 3 classes"):
        h.require_classes(("cat", "dog"))
    with pytest.raises(TransformationError, match="same classes"):
        h.require_classes(("cat", "ship", "dog"))


def rewrite(path, **changes):
    content = documents.unsealed(path.read_text()) | changes
    path.write_text(json.dumps(documents.sealed(content)))


def test_a_damaged_bundle_says_what_is_wrong(folder):
    weights, info = folder / PARTICIPANTS / bundle.WEIGHTS, folder / PARTICIPANTS / bundle.INFO
    good, document = weights.read_bytes(), info.read_text()

    def refused(message):
        with pytest.raises(TransformationError, match=message) as caught:
            load_transformation(folder)
        assert "\n" not in str(caught.value)
        weights.write_bytes(good)
        info.write_text(document)

    weights.write_bytes(good[:-10])
    refused("not a usable transformation bundle")
    weights.write_bytes(b"no tensors")
    refused("not a usable transformation bundle")
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused("does not have the digest that h.json names")
    weights.unlink()
    refused(r"h\.safetensors cannot be read \(No such file")
    info.unlink()
    refused(r"h\.json cannot be read \(No such file")
    info.write_text("{")
    refused("not a usable transformation bundle: JSONDecodeError")
    info.write_text("[]")
    refused("not a usable transformation bundle: ValueError")
    for changes, message in (
        ({"format": 99}, "has format 99; this version reads 2; use the version"),
        ({"method": "magic"}, "not a usable transformation bundle: KeyError: 'magic'"),
        ({"architecture": {"widths": [8, 8]}}, "not a usable transformation bundle"),
        ({"architecture": {"width": 8}}, "not a usable transformation bundle"),
        ({"architecture": {"widths": [10**12] * 2}}, "not a usable transformation bundle"),
        ({"size": [16]}, "not a usable transformation bundle"),
        ({"classes": []}, "names no classes"),
        ({"sha256": "0" * 64}, "does not have the digest"),
    ):
        rewrite(info, **changes)
        refused(message)
    load_transformation(folder)


def test_a_missing_bundle_or_part_is_one_line(tmp_path, folder):
    with pytest.raises(TransformationError, match="nowhere is not a folder"):
        load_transformation(tmp_path / "nowhere")
    with pytest.raises(TransformationError, match=r"cannot be read .* transformation train"):
        load_transformation(folder / PROVIDER)
    with pytest.raises(TransformationError, match=r"psi\.json cannot be read"):
        load_classifier(folder / PARTICIPANTS)
    with pytest.raises(TransformationError, match=r"foreign\.json cannot be read"):
        load_classifier(folder, stem=FOREIGN)
    psi = folder / PROVIDER / "psi.safetensors"
    psi.write_bytes(psi.read_bytes()[:-1])
    with pytest.raises(TransformationError, match="not a usable model directory"):
        load_classifier(folder)


def test_parts_of_different_bundles_do_not_go_together(folder, tmp_path):
    write(tmp_path / "other", seed=1)
    shutil.rmtree(folder / PROVIDER)
    load_transformation(folder)  # participants need only their own part
    shutil.copytree(tmp_path / "other" / PROVIDER, folder / PROVIDER)
    with pytest.raises(TransformationError, match="take both from the same bundle"):
        load_transformation(folder)


def test_loading_leaves_the_random_state_alone(folder):
    before = torch.get_rng_state()
    load_transformation(folder)
    assert torch.equal(torch.get_rng_state(), before)
