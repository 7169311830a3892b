"""Every byte of the CIFAR-10 test set comes back, from every cipher under independent keys.

The other policies, which use one key for all images, are in ``test_all_ciphers.py``.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedenc.ciphers import make, names
from fedenc.data import load
from fedenc.keys import KeyRing

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cifar10"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    if not ROOT.is_dir():
        pytest.skip(f"needs CIFAR-10 as Parquet files in {ROOT}")
    return torch.from_numpy(np.array(load("cifar10", root=ROOT).test.images))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in names() if n != "none"])
def test_round_trip(images: torch.Tensor, name: str) -> None:
    cipher = make(name)
    keys = KeyRing(bytes(range(32))).keystream(
        method=name,
        policy="image",
        purpose="train",
        nonce=bytes(16),
        ids=np.arange(len(images)),
    )
    protected = cipher.encrypt(images, keys)
    restored = cipher.decrypt(protected, keys, shape=(3, 32, 32))
    assert protected.shape[1:] != images.shape[1:] or not torch.equal(protected, images)
    if cipher.exact:
        assert torch.equal(restored, images)
    else:
        assert (restored.int() - images.int()).abs().max() <= 2
