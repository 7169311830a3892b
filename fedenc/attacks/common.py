"""What several attacks share: pictures that need no key, and how natural a picture looks."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fedenc.attacks.base import Method
from fedenc.attacks.recovery import UNKNOWN
from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.ciphers.ele import ELE
from fedenc.ciphers.etc import EtC
from fedenc.ciphers.etc_gray import EtCGray
from fedenc.ciphers.le import BLOCK, LE
from fedenc.ciphers.none import NoCipher
from fedenc.ciphers.pixel import Pixel
from fedenc.ciphers.scramble import Scramble
from fedenc.keys import KeyRing, Keystream, new_nonce
from fedenc.models.inputs import fold

NATURAL_MEAN, NATURAL_SPREAD = 120.0, 50.0  # of the gray values of photographs, roughly
_SMOOTHER = 0.5  # roughness under the right key, relative to that under wrong ones: at most
_CHUNK = 1024  # images whose half-bytes are worked on as floats at a time


def fitted(protected: Tensor, shape: Shape) -> Tensor:
    """Ciphertexts in the shape of plain images: without padding, and gray ones in every channel.

    uint8 (N, C', H', W') to uint8 (N, *shape); of planes below each other the first is shown.
    """
    channels, height, width = shape
    if protected.shape[2] < height or protected.shape[3] < width:
        protected = F.interpolate(protected, (height, width), mode="nearest")
    cropped = protected[:, :, :height, :width].clone()
    if cropped.shape[1] != channels:
        return cropped[:, :1].repeat(1, channels, 1, 1)
    return cropped


def zero_key_pictures(method: Method, protected: Tensor) -> Tensor:
    """The most that a person can see in each ciphertext alone, by one rule for each method.

    Args:
        method: how images were protected.
        protected: uint8 (N, *protected shape).

    Returns:
        uint8 (N, *method.shape).
    """
    picture = _PICTURES.get(type(method.cipher), _canonical)
    return fitted(picture(method.cipher, protected), method.shape)


def _canonical(cipher: Cipher | None, protected: Tensor) -> Tensor:
    found = None if cipher is None else cipher.canonical(protected)
    return protected if found is None else found


def _as_it_is(cipher: Cipher | None, protected: Tensor) -> Tensor:
    return protected


def _folded(cipher: Cipher | None, protected: Tensor) -> Tensor:
    """``min(v, 255 − v)``; in gray where the order of the colours is lost."""
    folded = fold(protected)
    if isinstance(cipher, Pixel) and not cipher.color_shuffle:
        return folded
    mean = folded.float().mean(1, keepdim=True).round().to(torch.uint8)
    return mean.expand_as(folded)


def _thumbnails(cipher: Cipher | None, protected: Tensor) -> Tensor:
    """The first principal component of an LE image's blocks, which share a key: their brightness.

    Permuting and reversing half-bytes rotates and mirrors the space in which blocks are points, so
    it changes nothing about their distances, whatever the key.
    """
    count, _, height, width = protected.shape
    rows, columns = height // BLOCK, width // BLOCK
    if rows * columns < 2:
        return _folded(cipher, protected)
    scores = torch.empty(count, 1, rows, columns)
    for start in range(0, count, _CHUNK):
        blocks = functional.split_blocks(protected[start : start + _CHUNK], BLOCK)
        points = functional.split_nibbles(blocks).float()  # (N, M, positions)
        points -= points.mean(1, keepdim=True)
        first = torch.linalg.eigh(points @ points.transpose(1, 2)).eigenvectors[..., -1]
        scores[start : start + _CHUNK] = first.view(-1, 1, rows, columns)
    small = normalised(upright(scores))
    large = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    return as_bytes(large).expand_as(protected)


_PICTURES: dict[type, Callable[[Cipher | None, Tensor], Tensor]] = {
    Pixel: _folded,
    EtC: _folded,
    EtCGray: _folded,
    ELE: _folded,
    LE: _thumbnails,
    Scramble: _as_it_is,  # sorting the blocks would only move them further
    NoCipher: _as_it_is,
}


def upright(gray: Tensor) -> Tensor:
    """Complement those of float (N, 1, h, w), h of 2 or more, whose top half is the darker one:
    light mostly comes from above."""
    half = gray.shape[2] // 2
    if not half:
        return gray
    falls = gray[:, :, :half].mean((1, 2, 3)) - gray[:, :, -half:].mean((1, 2, 3))
    return torch.where(falls[:, None, None, None] < 0, -gray, gray)


def normalised(gray: Tensor) -> Tensor:
    """Float (N, 1, h, w) with the mean and contrast that photographs have."""
    mean = gray.mean((1, 2, 3), keepdim=True)
    spread = gray.std((1, 2, 3), keepdim=True, unbiased=False).clamp_min(1e-6)
    return NATURAL_MEAN + NATURAL_SPREAD * (gray - mean) / spread


def as_bytes(images: Tensor) -> Tensor:
    """Float values 0 to 255 as the nearest uint8."""
    return images.round().clamp(0, 255).to(torch.uint8)


def roughness(method: Method, images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring values: plain uint8 (N, C, H, W) to float (N,).
    Natural images have little of it, and what a wrong key makes of them much.

    Where a cipher keeps the content of blocks, only steps from one block to the next count.
    """
    values = images.to(torch.int16)
    period = getattr(method.cipher, "block_size", 1)
    steps = []
    for dim in (2, 3):
        differences = values.diff(dim=dim).abs()
        after = torch.arange(period - 1, differences.shape[dim], period)
        steps.append(differences.index_select(dim, after).flatten(1))
    return torch.cat(steps, dim=1).float().mean(1)


def natural(method: Method, protected: Tensor, decrypted: Tensor) -> bool:
    """Whether a key is likely to be right: what it makes of uint8 (N, *protected shape) is
    smoother than what keys make of it that are certainly wrong."""
    assert method.cipher is not None
    wrong = method.cipher.decrypt(protected, _fresh(method, len(protected)), shape=method.shape)
    logs = (roughness(method, one).clamp_min(1e-3).log() for one in (decrypted, wrong))
    smooth, rough = logs
    return float((smooth - rough).mean().exp()) < _SMOOTHER


def _fresh(method: Method, count: int) -> Keystream:
    """Keys of the attacker's own."""
    ids = torch.arange(count).numpy()
    return KeyRing.generate().keystream(
        method=method.name, policy="image", purpose="attack", nonce=new_nonce(), ids=ids
    )


def unknown_key(method: Method) -> KeyParts:
    """Key parts of which nothing is known: int64 −1, in the shapes of one key."""
    assert method.cipher is not None
    parts = method.cipher.draw(_fresh(method, 1), *method.shape)
    return tuple(torch.tensor(UNKNOWN).expand(part.shape) for part in parts)
