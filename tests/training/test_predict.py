import numpy as np
import pytest
import torch

from fedenc import ciphers, models
from fedenc.errors import TrainingError
from fedenc.keys import KeyRing
from fedenc.training.predict import predict

CPU = torch.device("cpu")


@pytest.fixture
def model():
    return models.build("resnet20", channels=3, classes=5, size=(8, 8))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (11, 3, 8, 8), dtype=torch.uint8, generator=generator)


def test_scores_are_the_softmax_of_the_logits_whatever_the_batches(model, images):
    scores = predict(model, images, device=CPU, batch_size=4, precision="fp32")
    assert scores.dtype == torch.float32
    assert scores.shape == (11, 5)
    expected = model.eval()(images).softmax(dim=1)
    assert torch.allclose(scores, expected, atol=1e-5)
    halves = predict(model, images, device=CPU)
    assert torch.allclose(halves, expected, atol=0.05)


def test_flip_averages_with_the_mirrored_image(model, images):
    def scores(inputs, flip):
        return predict(model, inputs, device=CPU, flip=flip, precision="fp32")

    mean = (scores(images, False) + scores(images.flip(-1), False)) / 2
    assert torch.allclose(scores(images, True), mean, atol=1e-6)
    assert torch.allclose(scores(images.flip(-1), True), mean, atol=1e-6)


def test_the_mode_of_the_model_and_its_statistics_stay(model, images):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict(model, images, device=CPU)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_images_that_do_not_fit_are_refused(model, images):
    for bad, message in (
        (images.float(), "float32 11×3×8×8; expected uint8 N×C×H×W"),
        (images[0], "uint8 3×8×8; expected"),
        (images[:, :1], "11×1×8×8; this model takes uint8 N×3×8×8"),
        (images[:0], "no images"),
    ):
        with pytest.raises(TrainingError, match=message):
            predict(model, bad, device=CPU)
    with pytest.raises(TrainingError, match="batch_size is 0"):
        predict(model, images, device=CPU, batch_size=0)
    with pytest.raises(TrainingError, match="precision is 'half'"):
        predict(model, images, device=CPU, precision="half")


@pytest.mark.parametrize(
    ("color_shuffle", "kind"), [(False, "invariant-np"), (False, "invariant"), (True, "invariant")]
)
@pytest.mark.parametrize("policy", ["same", "image"])
def test_an_invariant_model_answers_plain_and_encrypted_queries_alike(
    images, color_shuffle, kind, policy
):
    model = models.build("resnet20", channels=3, classes=5, size=(8, 8), input=kind)
    keystream = KeyRing.simulated(1, 0).keystream(
        method="pixel", policy=policy, purpose="query", nonce=bytes(16), ids=np.arange(len(images))
    )
    encrypted = ciphers.make("pixel", color_shuffle=color_shuffle).encrypt(images, keystream)
    assert not torch.equal(encrypted, images)
    assert torch.equal(predict(model, encrypted, device=CPU), predict(model, images, device=CPU))


@pytest.mark.parametrize("name", ["resnet20", "set"])
@pytest.mark.parametrize("method", ["etc", "etc-gray", "scramble", "le", "ele"])
def test_a_canonical_form_answers_plain_and_encrypted_queries_alike(images, method, name):
    cipher = ciphers.make(method)
    keystream = KeyRing.simulated(1, 0).keystream(
        method=method, policy="same", purpose="query", nonce=bytes(16), ids=np.arange(len(images))
    )
    plain, encrypted = cipher.layout(images), cipher.encrypt(images, keystream)
    channels, *size = plain.shape[1:]
    model = models.build(
        name,
        channels=channels,
        classes=5,
        size=tuple(size),
        input="invariant",
        cipher=method,
        cipher_params=cipher.params(),
    )
    model.input.measure(encrypted)
    answers = predict(model, plain, device=CPU)
    assert torch.equal(predict(model, encrypted, device=CPU), answers)
    assert len(answers.unique(dim=0)) > 1, "and different images differently"
