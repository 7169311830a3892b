"""A network over blocks: their order makes no difference to it, their content does."""

import pytest
import torch

from fedenc import models
from fedenc.errors import TrainingError
from fedenc.images.blocks import merge_blocks, split_blocks
from fedenc.models.network import Network


def network(size: tuple[int, int] = (16, 24), block: int = 4) -> Network:
    return models.build(
        "set",
        channels=3,
        classes=5,
        size=size,
        cipher="scramble",
        cipher_params={"block_size": block},
    ).eval()


@pytest.mark.parametrize("block", [4, 8])
def test_the_order_of_blocks_makes_no_difference(block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 16, 24), dtype=torch.uint8, generator=generator)
    blocks = split_blocks(images, block)
    moved = blocks[:, torch.randperm(blocks.shape[1], generator=generator)]
    model = network(block=block)
    answers = model(images)
    assert torch.allclose(model(merge_blocks(moved, 16, 24)), answers, atol=1e-5)
    other = images.clone()
    other[:, :, 5, 5] ^= 128
    assert not torch.allclose(model(other), answers, atol=1e-5)


def test_its_blocks_are_the_ciphers() -> None:
    assert network(block=8).body[0].kernel_size == (8, 8)
    assert network().architecture.cipher_params == {"block_size": 4}
    with pytest.raises(TrainingError, match="width is 20; expected at least 1 and a multiple of 8"):
        network((16, 20), block=8)
