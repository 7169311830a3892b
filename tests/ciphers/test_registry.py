"""Ciphers by name and parameters."""

import json
import pickle

import pytest
import torch

from fedenc.ciphers import Cipher, make, names
from fedenc.errors import CipherError
from fedenc.keys import KeyRing


@pytest.mark.parametrize("name", names())
def test_params_rebuild_an_equal_cipher(name: str) -> None:
    cipher = make(name)
    assert isinstance(cipher, Cipher)
    assert cipher.name == name
    assert make(name, **json.loads(json.dumps(cipher.params()))) == cipher
    assert pickle.loads(pickle.dumps(cipher)) == cipher


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(CipherError, match="there is no cipher 'pixle'; known are none, pixel"):
        make("pixle")


def test_unknown_parameters_are_named() -> None:
    with pytest.raises(CipherError, match=r"'pixel' has no parameter 'shuffle' .* color_shuffle"):
        make("pixel", shuffle=True)
    with pytest.raises(CipherError, match="takes no parameters"):
        make("none", shuffle=True)


def test_wrong_values_are_named() -> None:
    with pytest.raises(CipherError, match="color_shuffle is 'yes', expected true or false"):
        make("pixel", color_shuffle="yes")


def test_none_returns_a_copy_of_the_images() -> None:
    images = torch.arange(96, dtype=torch.uint8).reshape(2, 3, 4, 4)
    keys = KeyRing.simulated(0, 0).keystream(
        method="none", policy="same", purpose="train", nonce=b"", ids=[0, 1]
    )
    found = make("none").encrypt(images, keys)
    assert torch.equal(found, images)
    assert found.data_ptr() != images.data_ptr()
    assert torch.equal(make("none").decrypt(images, keys), images)
    assert make("none").key_space_log2(3, 4, 4) == 0
