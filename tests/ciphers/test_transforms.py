"""Ciphers as torchvision v2 transforms."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from fedenc.ciphers import make, names
from fedenc.ciphers.transforms import Encrypt
from fedenc.errors import CipherError
from fedenc.keys import KeyRing

RING = KeyRing(bytes(range(32)))
NONCE = bytes(16)


def image(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))


@pytest.mark.parametrize("name", names())
def test_equals_the_cipher_under_one_key(name: str) -> None:
    cipher, plain = make(name), image(2, 3, 16, 16)
    keys = RING.keystream(
        method=name, policy="client", purpose="train", nonce=NONCE, ids=np.arange(2)
    )
    expected = cipher.encrypt(plain, keys)
    encrypt = Encrypt(cipher, RING, policy="client", nonce=NONCE)
    assert torch.equal(encrypt(plain), expected)
    assert torch.equal(encrypt(plain[1]), expected[1])
    assert torch.equal(encrypt(plain[None]), expected[None])


def test_composes_with_other_transforms_and_keeps_types() -> None:
    pipeline = v2.Compose(
        [
            v2.Resize((12, 10)),
            Encrypt(make("pixel"), RING, policy="same"),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    found = pipeline(tv_tensors.Image(image(3, 20, 20)))
    assert type(found) is tv_tensors.Image
    assert found.shape == (3, 12, 10)
    assert found.dtype == torch.float32
    assert type(pipeline(image(3, 20, 20))) is torch.Tensor


def test_leaves_masks_boxes_and_labels_alone() -> None:
    sample = {
        "image": tv_tensors.Image(image(3, 8, 8)),
        "mask": tv_tensors.Mask(image(8, 8)),
        "boxes": tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(8, 8)),
        "label": 3,
        "score": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "name": "a",
    }
    found = Encrypt(make("pixel"), RING)(sample)
    assert not torch.equal(found["image"], sample["image"])
    assert torch.equal(found["mask"], sample["mask"])
    assert torch.equal(found["boxes"], sample["boxes"])
    assert torch.equal(found["score"], sample["score"])
    assert type(found["mask"]) is tv_tensors.Mask
    assert (found["label"], found["name"]) == (3, "a")
    alone = Encrypt(make("pixel"), RING)(sample["mask"])
    assert torch.equal(alone, sample["mask"])


def test_ids_decide_what_shares_a_key() -> None:
    plain = image(3, 8, 8)
    fresh = Encrypt(make("pixel"), RING)
    assert not torch.equal(fresh(plain), fresh(plain))
    twins = fresh(plain.expand(2, 3, 8, 8))
    assert not torch.equal(twins[0], twins[1])
    steady = Encrypt(make("pixel"), RING, ids="content", nonce=NONCE)
    assert torch.equal(steady(plain), steady(plain))
    flips = [steady(p) ^ p for p in (plain, plain ^ 1)]
    assert not torch.equal(flips[0], flips[1])
    three = torch.stack((plain, plain ^ 1, plain))
    assert torch.equal(steady(three), torch.stack([steady(p) for p in three]))
    other = Encrypt(make("pixel"), RING, ids="content")
    assert not torch.equal(other(plain), steady(plain))


def test_pickles() -> None:
    encrypt = Encrypt(make("etc", block_size=8), RING, ids="content")
    copy = pickle.loads(pickle.dumps(encrypt))
    plain = image(3, 16, 16)
    assert torch.equal(copy(plain), encrypt(plain))
    assert (bytes(range(32)).hex() in repr(encrypt)) is False
    assert "pixel" not in repr(encrypt)
    assert RING.fingerprint in repr(encrypt)


class Copies(Dataset):
    """The same image again and again."""

    def __init__(self, transform: Encrypt) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(image(3, 8, 8))


def test_loader_workers_do_not_repeat_keys() -> None:
    loader = DataLoader(
        Copies(Encrypt(make("pixel"), RING)),
        batch_size=2,
        num_workers=2,
        multiprocessing_context="fork",
    )
    found = torch.cat([*loader, *loader])
    assert len({f.numpy().tobytes() for f in found}) == 16


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Image.new("RGB", (4, 4)), r"found a PIL image; put v2.PILToTensor\(\) before"),
        (torch.zeros(3, 4, 4), "torch.float32"),
        (image(4, 4), r"\[..., C, H, W\], found shape \(4, 4\)"),
        (image(1, 4, 4), "3 channels, found 1"),
    ],
)
def test_bad_input(sample: object, message: str) -> None:
    with pytest.raises(CipherError, match=message):
        Encrypt(make("pixel"), RING)(sample)


def test_bad_choices() -> None:
    with pytest.raises(CipherError, match="ids is 'none', expected 'random' or 'content'"):
        Encrypt(make("pixel"), RING, ids="none")
