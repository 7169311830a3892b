import json
import resource

import pytest
import safetensors.torch
import torch

from fedenc import documents, models
from fedenc.errors import TrainingError
from fedenc.models.adapters import ADAPTERS
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


def test_no_bit_of_a_checkpoint_can_change():
    data = checkpoint.pack({"a": torch.zeros(5), "b": torch.ones(3)}, {"step": 1, "loss": 0.25})
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        try:
            tensors, document = checkpoint.unpack(bytes(changed))
        except TrainingError:
            continue
        assert document == {"step": 1, "loss": 0.25}
        assert torch.equal(tensors["a"], torch.zeros(5))
        assert torch.equal(tensors["b"], torch.ones(3))


def test_a_checkpoint_of_an_earlier_version_is_called_so():
    data = safetensors.torch.save({"a": torch.zeros(1)}, {"fedenc": '{"version":2}'})
    with pytest.raises(TrainingError, match="earlier version"):
        checkpoint.unpack(data)


def test_no_bit_of_a_configuration_can_change():
    files, _ = model_files.pack_model(network(), details={"classes": ["cat", "dog"]})
    before = model_files.unpack_model(files)
    text = files["config.json"]
    for place in range(0, len(text), 9):
        changed = bytearray(text)
        changed[place] ^= 1 << place % 7
        try:
            model, details = model_files.unpack_model(files | {"config.json": bytes(changed)})
        except TrainingError:
            continue
        assert (model.architecture, details) == (before[0].architecture, before[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 10**7},
        {"classes": 10**30},
        {"channels": 10**7},
        {"size": [10**6, 10**6], "adapter": "ele-adaptnet"},
        {"size": 5},
        {"size": ["a", "b"]},
        {"input": "invariant", "cipher": "scramble", "cipher_params": {"block_size": "x"}},
        {"name": ["set"]},
        {"name": "set", "cipher": "etc", "cipher_params": {"block_size": 10**9}},
    ],
)
def test_a_forged_configuration_costs_no_memory(changes):
    """Networks are built without memory until the weights in the file are seen to fit."""
    files, _ = model_files.pack_model(network())
    config = documents.unsealed(files["config.json"])
    config["architecture"] |= changes
    forged = json.dumps(documents.sealed(config)).encode()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TrainingError):
        model_files.unpack_model(files | {"config.json": forged})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "KiB"


@pytest.mark.parametrize("config", [b"[" * 100_000, b"[]", b"null", b'{"format": 2, "seal": {}}'])
def test_a_configuration_of_another_kind_is_one_clear_error(config):
    files, _ = model_files.pack_model(network())
    with pytest.raises(TrainingError, match="not a usable model directory"):
        model_files.unpack_model(files | {"config.json": config})


@pytest.mark.parametrize(
    ("name", "adapter"), [*((n, None) for n in models.names()), *(("tiny", a) for a in ADAPTERS)]
)
def test_every_network_comes_back_the_same(name, adapter):
    model = models.build(name, channels=3, classes=5, size=(32, 32), adapter=adapter, seed=1)
    loaded, _ = model_files.unpack_model(model_files.pack_model(model)[0])
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(predict(loaded, images, device=CPU), predict(model, images, device=CPU))


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
    config = documents.unsealed((tmp_path / model_files.CONFIG).read_text())

    def rewrite(**changes):
        content = documents.sealed(config | changes)
        (tmp_path / model_files.CONFIG).write_text(json.dumps(content))

    rewrite(format=99)
    with pytest.raises(TrainingError, match="has format 99; this version reads 2"):
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
    config["format"] = 1
    del config["seal"], config["architecture"]["cipher"], config["architecture"]["cipher_params"]
    loaded, _ = model_files.unpack_model(files | {"config.json": json.dumps(config).encode()})
    assert loaded.architecture == model.architecture
    images = torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8)
    assert torch.equal(loaded.input.features(images), fold_sorted(images))
