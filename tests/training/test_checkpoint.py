import json

import pytest
import torch

from fedenc import models
from fedenc.errors import TrainingError
from fedenc.models.network import Network
from fedenc.orbits.values import fold_sorted
from fedenc.training import checkpoint, model_files
from fedenc.training.predict import predict

CPU = torch.device("cpu")


def network(seed: int = 0) -> Network:
    return models.build("resnet20", channels=3, classes=5, size=(8, 8), seed=seed)


def test_pack_and_unpack():
    tensors = {
        "a": torch.arange(12.0).view(3, 4),
        "b": torch.tensor(7),
        "c": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "d": torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
    }
    document = {"step": 3, "ä": [1, 2.5, None, True, "x"]}
    data = checkpoint.pack(tensors, document)
    found, read = checkpoint.unpack(data)
    assert read == document
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert checkpoint.pack(dict(reversed(tensors.items())), document) == data


def test_damage_is_one_clear_error():
    data = checkpoint.pack({"a": torch.zeros(100)}, {"step": 1})
    for damaged in (b"", b"junk", data[:-1], data[:20], data.replace(b"fedenc", b"fedora")):
        with pytest.raises(TrainingError, match="damaged or not one of ours"):
            checkpoint.unpack(damaged)


def test_the_digest_ignores_memory_layout_and_sees_every_bit():
    model = network()
    digest = model_files.weights_sha256(model)
    assert model_files.weights_sha256(model.to(memory_format=torch.channels_last)) == digest
    assert model_files.weights_sha256(network(1)) != digest
    model.input.mean[0] += 1e-7
    assert model_files.weights_sha256(model) != digest


def test_a_model_directory_comes_back_the_same(tmp_path):
    model = network()
    sha256 = model_files.save_model(tmp_path / "m", model, details={"classes": ["a", "b"]})
    loaded, details = model_files.load_model(tmp_path / "m")
    assert details == {"classes": ["a", "b"]}
    assert loaded.architecture == model.architecture
    assert model_files.weights_sha256(loaded) == sha256
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(predict(loaded, images, device=CPU), predict(model, images, device=CPU))


def test_a_directory_holds_models_of_several_stems(tmp_path):
    for seed, stem in enumerate(("psi", "foreign")):
        model_files.save_model(tmp_path, network(seed), details={"seed": seed}, stem=stem)
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{stem}.{kind}" for stem in ("psi", "foreign") for kind in ("safetensors", "json")
    }
    for seed, stem in enumerate(("psi", "foreign")):
        model, details = model_files.load_model(tmp_path, stem=stem)
        assert details == {"seed": seed}
        assert model_files.weights_sha256(model) == model_files.weights_sha256(network(seed))
    with pytest.raises(TrainingError, match=r"model\.safetensors and config\.json"):
        model_files.load_model(tmp_path)


def test_an_unusable_model_directory_says_why(tmp_path):
    with pytest.raises(TrainingError, match=r"config\.json cannot be read \(No such file"):
        model_files.load_model(tmp_path)
    model_files.save_model(tmp_path, network())
    config = json.loads((tmp_path / model_files.CONFIG).read_text())

    def rewrite(**changes):
        (tmp_path / model_files.CONFIG).write_text(json.dumps(config | changes))

    rewrite(format=99)
    with pytest.raises(TrainingError, match="has format 99; this version reads 1"):
        model_files.load_model(tmp_path)
    rewrite(sha256="0" * 64)
    with pytest.raises(TrainingError, match="does not have the digest"):
        model_files.load_model(tmp_path)
    rewrite(architecture=config["architecture"] | {"classes": 6})
    with pytest.raises(TrainingError, match="not a usable model directory"):
        model_files.load_model(tmp_path)
    rewrite()
    weights = tmp_path / model_files.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(TrainingError, match="not a usable model directory"):
        model_files.load_model(tmp_path)


@pytest.mark.parametrize("name", ["tiny", "set"])
def test_a_model_remembers_whose_canonical_form_it_reads(name):
    cipher = {"cipher": "scramble", "cipher_params": {"block_size": 4, "padding": "edge"}}
    model = models.build(name, channels=3, classes=5, size=(12, 12), input="invariant", **cipher)
    loaded, _ = model_files.unpack_model(model_files.pack_model(model)[0])
    assert loaded.architecture == model.architecture
    images = torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8)
    assert torch.equal(loaded.input.features(images), model.input.features(images))


def test_a_model_written_before_ciphers_were_named_reads_the_sorted_fold():
    model = models.build("tiny", channels=3, classes=5, size=(12, 12), input="invariant")
    files = model_files.pack_model(model)[0]
    config = json.loads(files["config.json"])
    del config["architecture"]["cipher"], config["architecture"]["cipher_params"]
    loaded, _ = model_files.unpack_model(files | {"config.json": json.dumps(config).encode()})
    assert loaded.architecture == model.architecture
    images = torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8)
    assert torch.equal(loaded.input.features(images), fold_sorted(images))
