"""Chosen plaintexts: images that are made so that their ciphertexts spell out the key."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc import seeding
from fedenc.attacks.base import Attack, Findings, Knowledge, Means, Method, Observation
from fedenc.attacks.common import unknown_key, zero_key_pictures
from fedenc.attacks.recovery import recover, solvable
from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, Shape
from fedenc.ciphers.ele import ELE
from fedenc.ciphers.le import BLOCK, LE
from fedenc.ciphers.logistic_rc4 import LogisticRC4
from fedenc.ciphers.pixel import Pixel


@dataclass(frozen=True)
class ChosenPlaintext(Attack):
    """Has one to four made-up images encrypted under each key and reads the key from the results.

    Pixel-based encryption as published: one image of the constant colour (1, 2, 3). LE: two blocks
    in which each half-byte position has a pair of values of its own, different from all others and
    from their complements (the 16 images of the published attack identify whole bytes, not
    half-bytes). ELE: four images, in which each position of the whole image has four values of its
    own. Ciphers that move blocks: one image of random bytes, whose blocks are all different.
    ``logistic-rc4``: a black image shows the stream, a second one numbers the pixels.

    Under independent keys nothing is asked for, since no answer would be under the key of another
    image.
    """

    name: ClassVar[str] = "chosen-plaintext"
    source: ClassVar[str] = "Chang & Case, arXiv 2004.13263; for other ciphers derived"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.CHOSEN})

    def unsuitable(self, method: Method) -> str | None:
        if method.cipher is None:
            return "needs a cipher with keys"
        return None if solvable(method.cipher) else f"knows no way to solve {method.name}"

    def run(self, observation: Observation, means: Means) -> Findings:
        method, uploads = observation.method, observation.uploads
        assert method.cipher is not None
        images = zero_key_pictures(method, uploads.images)
        if not method.shares_keys:
            key = (unknown_key(method),) * len(uploads)
            return Findings(images=images, key=key, facts={"chosen": 0})
        chosen = choose(method.cipher, method.shape, means.seed)
        keys = []
        for rows in observation.groups():
            encrypted = observation.oracle(chosen, int(uploads.owners[rows[0]]))
            found = recover(method.cipher, chosen, encrypted)
            images[rows] = method.cipher.invert(uploads.images[rows], found.guess, method.shape)
            keys.append(found.known)
        return Findings(images=images, key=tuple(keys), facts={"chosen": len(chosen)})


def choose(cipher: Cipher, shape: Shape, seed: int) -> Tensor:
    """The images to ask for: uint8 (K, *shape)."""
    if isinstance(cipher, Pixel):
        colour = torch.arange(1, shape[0] + 1, dtype=torch.uint8)
        return colour.view(1, -1, 1, 1).expand(1, *shape).contiguous()
    if isinstance(cipher, LogisticRC4):
        return _numbered_pixels(shape)
    if isinstance(cipher, LE | ELE):
        return _numbered_half_bytes(cipher, shape)
    generator = seeding.generator(seed, "chosen plaintext")
    return torch.randint(256, (1, *shape), generator=generator).to(torch.uint8)


def _numbered_pixels(shape: Shape) -> Tensor:
    """A black image, then images in which the bytes of every pixel together are its number."""
    channels, height, width = shape
    numbers = torch.arange(height * width)
    images = 1
    while 256 ** (images * channels) < len(numbers):
        images += 1
    numbered = _digits(numbers, 256, images * channels).view(images, *shape)
    return torch.cat((torch.zeros(1, *shape, dtype=torch.uint8), numbered))


def _numbered_half_bytes(cipher: LE | ELE, shape: Shape) -> Tensor:
    """Images in which the values of every half-byte position, one after another, are its number.

    Under LE a position shows one value in each block, so that one image is enough; under ELE it
    shows one in each image. The first value is below 8, so that no position has the complement of
    another's values.
    """
    channels, height, width = cipher.output_shape(*shape)
    blocks = (height // BLOCK) * (width // BLOCK)
    positions = 2 * channels * BLOCK**2
    shared = isinstance(cipher, LE)
    numbers = torch.arange(positions if shared else blocks * positions)
    count = 1
    while 8 * 16 ** (count - 1) < len(numbers):
        count += 1
    values = _digits(numbers, 16, count)
    if shared:
        whole = (shape[1] // BLOCK) * (shape[2] // BLOCK)  # blocks without padding
        images = -(-count // max(whole, 1))
        values = values[torch.arange(images * blocks) % count]
    nibbles = values.view(-1, blocks, positions)
    merged = functional.merge_nibbles(nibbles, channels, BLOCK)
    return functional.merge_blocks(merged, height, width)[..., : shape[1], : shape[2]].contiguous()


def _digits(numbers: Tensor, base: int, count: int) -> Tensor:
    """The last digits of int64 (K,), most significant first: uint8 (count, K)."""
    powers = base ** torch.arange(count).flip(0)
    return (numbers // powers[:, None] % base).to(torch.uint8)
