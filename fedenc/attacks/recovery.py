"""Keys from known pairs: what plain images and their ciphertexts under one key tell about it.

All of it is matching. A key permutes things (colours, half-bytes, pixels, blocks) and complements
some of them, the same way in every image. So each thing leaves a trail of values through the plain
images, and another through the ciphertexts; made free of complements and turns, the two trails are
equal. Things whose trail is unique are identified, and images tell many things apart.

Chang & Case (arXiv 2004.13263) attack pixel-based encryption and LE with chosen images;
Tanaka's LE falls to the same idea with known ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, KeyParts
from fedenc.ciphers.blocks import TURNS
from fedenc.ciphers.ele import ELE
from fedenc.ciphers.etc import EtC
from fedenc.ciphers.etc_gray import EtCGray
from fedenc.ciphers.le import BLOCK, LE
from fedenc.ciphers.logistic_rc4 import LogisticRC4
from fedenc.ciphers.pixel import Pixel
from fedenc.ciphers.scramble import Scramble
from fedenc.errors import AttackError

UNKNOWN = -1
COLOR_ORDERS = torch.tensor(list(permutations(range(3))))  # Table 1 of the pixel-based method


@dataclass(frozen=True)
class Recovered:
    """One key, as far as pairs tell it.

    Attributes:
        guess: key parts with which a cipher can decrypt; what pairs leave open is guessed such that
            it agrees with them.
        known: the same as int64, with −1 for what was guessed.
    """

    guess: KeyParts
    known: KeyParts


def solvable(cipher: Cipher | None) -> bool:
    """Whether ``recover`` knows the cipher."""
    return type(cipher) in _SOLVERS


def recover(cipher: Cipher, plain: Tensor, encrypted: Tensor) -> Recovered:
    """The key under which images were encrypted.

    Args:
        cipher: one that is ``solvable``.
        plain: uint8 (P, C, H, W), one pair or more.
        encrypted: uint8 (P, *output_shape(C, H, W)), in the same order and all under one key.

    Raises:
        AttackError: there are no pairs, or no way to solve the cipher is known.
    """
    if not solvable(cipher):
        raise AttackError(f"no way is known here to solve the cipher {cipher.name}")
    if not len(plain):
        raise AttackError("there are no known pairs under this key; expected one or more")
    return _SOLVERS[type(cipher)](cipher, cipher.layout(plain), encrypted)


def _pixel(cipher: Any, plain: Tensor, encrypted: Tensor) -> Recovered:
    """By intersection: of the six orders, keep those under which the bytes of every pair are equal
    or complementary, always the same."""
    orders = COLOR_ORDERS.tolist() if cipher.color_shuffle else [list(range(plain.shape[1]))]
    flips = torch.empty(len(orders), *plain.shape[1:], dtype=torch.uint8)
    fits = torch.empty(len(orders), *plain.shape[2:], dtype=torch.bool)
    for number, order in enumerate(orders):
        differing = encrypted ^ plain[:, order]  # (P, C, H, W)
        first = differing[0]
        bits = (first == 0) | (first == 255)
        fits[number] = (bits & (differing == first).all(0)).all(0)
        flips[number, order] = first
    chosen = fits.byte().argmax(0)  # (H, W), the first that fits
    flip = flips.gather(0, chosen.expand(1, *plain.shape[1:]))
    flip = (flip > 127) * torch.tensor(255, dtype=torch.uint8)
    agree = (((flips == flip) | ~fits[:, None]).all(0) & fits.any(0))[None]
    known_flip = flip.long().where(agree, UNKNOWN)
    if not cipher.color_shuffle:
        return Recovered((flip,), (known_flip,))
    code = chosen.to(torch.uint8)[None]
    known_code = chosen[None].where(fits.sum(0) == 1, UNKNOWN)
    return Recovered((flip, code), (known_flip, known_code))


def _le(cipher: Any, plain: Tensor, encrypted: Tensor) -> Recovered:
    """Every block of every pair is one observation of the same positions."""
    source, found = (half.flatten(0, 1).T[None] for half in _half_bytes(plain, encrypted))
    codes = _codes(_without_flips(source), _without_flips(found))
    order, flips, sure = _positions(source, found, *codes)
    parts = order[None], flips[None]
    return _known(parts, (sure[None], _moved(sure, order)[None]))


def _ele(cipher: Any, plain: Tensor, encrypted: Tensor) -> Recovered:
    """Blocks by the trails of all their positions, then positions within matched blocks."""
    source, found = (half.permute(1, 2, 0) for half in _half_bytes(plain, encrypted))
    codes = _codes(_without_flips(source), _without_flips(found))  # (M, positions) each
    blocks = _codes(*(one.sort(dim=1).values for one in codes))
    places, placed = _match(blocks[0][None], blocks[1][None])
    back = functional.invert_permutation(places)[0]  # where each block went
    order, flips, sure = _positions(source, found[back], codes[0], codes[1][back])
    sure &= placed[0, back][:, None]
    parts = order[None], flips[None], places
    return _known(parts, (sure[None], _moved(sure, order)[None], placed))


def _scramble(cipher: Any, plain: Tensor, encrypted: Tensor) -> Recovered:
    rows = (_blocks(cipher, one).transpose(0, 1).flatten(1) for one in (plain, encrypted))
    source, found = _codes(*rows)
    order, sure = _match(source[None], found[None])
    return _known((order,), (sure,))


def _etc(cipher: Any, plain: Tensor, encrypted: Tensor) -> Recovered:
    """Blocks by the first of all their forms, then the form that each of them takes."""
    colors = getattr(cipher, "color_shuffle", False)
    source, found = (_forms(_blocks(cipher, one), colors) for one in (plain, encrypted))
    source, found = _codes(source, found)  # (forms, M) each, in the order of the forms' bytes
    order, placed = _match(source.amin(0)[None], found.amin(0)[None])
    fits = source[:, order[0]] == found[0]  # form 0 changes nothing
    form, sure = fits.byte().argmax(0)[None], placed & (fits.sum(0) == 1)
    turns, flips = form % TURNS, form // TURNS % 2 * 255
    parts = order, turns.to(torch.uint8), flips.to(torch.uint8)
    if not colors:
        return _known(parts, (placed, sure, sure))
    codes = (form // (2 * TURNS)).to(torch.uint8)
    return _known((*parts, codes), (placed, sure, sure, sure))


def _logistic_rc4(cipher: Any, plain: Tensor, encrypted: Tensor) -> Recovered:
    """A reused stream falls out of the XOR of two ciphertexts; what is left is a permutation."""
    source, found = (
        (one ^ one[:1])[1:].flatten(2).permute(2, 0, 1).flatten(1) for one in (plain, encrypted)
    )
    if not source.numel():  # one pair alone fits every permutation
        source = found = torch.zeros(found.shape[0], 1, dtype=torch.uint8)
    codes = _codes(source, found)
    order, sure = _match(codes[0][None], codes[1][None])
    pad = encrypted[:1] ^ functional.permute_pixels(plain[:1], order)
    return _known((order, pad), (sure, sure.reshape(1, 1, *pad.shape[2:]).expand(pad.shape)))


_SOLVERS: dict[type, Callable[[Cipher, Tensor, Tensor], Recovered]] = {
    Pixel: _pixel,
    LE: _le,
    ELE: _ele,
    Scramble: _scramble,
    EtC: _etc,
    EtCGray: _etc,
    LogisticRC4: _logistic_rc4,
}


def _known(parts: KeyParts, sure: KeyParts) -> Recovered:
    known = tuple(part.long().where(s, UNKNOWN) for part, s in zip(parts, sure, strict=True))
    return Recovered(parts, known)


def _blocks(cipher: Any, images: Tensor) -> Tensor:
    """Plain images or ciphertexts, cut into blocks as the cipher does: (P, M, C, size, size)."""
    return functional.split_blocks(images, cipher.block_size)


def _half_bytes(*images: Tensor) -> list[Tensor]:
    """Half-bytes (P, M, positions) of plain images and of ciphertexts."""
    return [functional.split_nibbles(functional.split_blocks(one, BLOCK)) for one in images]


def _without_flips(trails: Tensor) -> Tensor:
    """Half-bytes (..., L), complemented where the first of a trail is 8 or more."""
    return trails ^ ((trails[..., :1] >> 3) * 15)


def _forms(blocks: Tensor, colors: bool) -> Tensor:
    """All turns, complements and colour orders of blocks: (P, M, C, size, size) to
    (96 or 16, M, P·C·size²). Form f is turn f % 8, complemented if f // 8 is odd, in the colour
    order f // 16."""
    count = blocks.shape[1]
    forms = []
    for code in range(len(COLOR_ORDERS) if colors else 1):
        for flip in (0, 255):
            for turn in range(TURNS):
                form = functional.turn_blocks(blocks, torch.full((1, count), turn)) ^ flip
                if code:
                    form = functional.shuffle_block_colors(form, torch.full((1, count), code))
                forms.append(form.transpose(0, 1).flatten(1))
    return torch.stack(forms)


def _positions(
    source: Tensor, found: Tensor, source_codes: Tensor, found_codes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """How half-bytes were permuted and reversed within each of G blocks.

    Args:
        source: trails (G, positions, L) of plain half-bytes.
        found: the same of ciphertexts.
        source_codes: int64 (G, positions), equal for trails that are equal but for complements.
        found_codes: the same of ciphertexts.

    Returns:
        order: int64 (G, positions).
        flips: uint8 0 or 1, (G, positions), of plain positions.
        sure: bool (G, positions), where order is certain.
    """
    order, sure = _match(source_codes, found_codes)
    differ = (found[..., 0] ^ source[..., 0].gather(1, order)) >> 3
    return order, _moved(differ, order), sure


def _moved(values: Tensor, order: Tensor) -> Tensor:
    """Values of ciphertext positions, (G, K), put where they were before the permutation."""
    return torch.empty_like(values).scatter_(-1, order, values)


def _codes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Integers in place of rows: uint8 or int64 (..., L) to int64 (...); equal for equal rows of
    both, and of bytes in their lexicographic order."""
    rows: npt.NDArray[Any] = torch.cat((first.flatten(0, -2), second.flatten(0, -2))).numpy()
    if rows.dtype != np.uint8:
        rows = rows.astype(">u4").view(np.uint8)
    rows = np.ascontiguousarray(rows)
    keys = rows.view(np.dtype((np.void, rows.shape[1]))).ravel()
    codes = torch.from_numpy(np.unique(keys, return_inverse=True)[1].reshape(-1).astype(np.int64))
    border = first[..., 0].numel()
    return codes[:border].view(first.shape[:-1]), codes[border:].view(second.shape[:-1])


def _match(source: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the things each one is, of G groups.

    Args:
        source: int64 (G, K), codes of what there was.
        found: int64 (G, K), codes of what became of them.

    Returns:
        order: int64 (G, K), a permutation in every row; ``found[k] == source[order[k]]`` wherever
            both hold the same codes equally often.
        sure: bool (G, K): the code is found there, and there is no other like it.
    """
    ranked, to = source.sort(dim=1, stable=True)
    ranked_found, at = found.sort(dim=1, stable=True)
    same = ranked[:, 1:] == ranked[:, :-1]
    alone = torch.ones_like(ranked, dtype=torch.bool)
    alone[:, 1:] &= ~same
    alone[:, :-1] &= ~same
    order = torch.empty_like(to).scatter_(1, at, to)
    sure = torch.empty_like(alone).scatter_(1, at, alone & (ranked == ranked_found))
    return order, sure
