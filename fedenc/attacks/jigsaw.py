"""Putting scrambled blocks together again by how their sides fit."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.attacks import puzzle
from fedenc.attacks.base import Attack, Cost, Findings, Means, Method, Observation
from fedenc.attacks.puzzle import Forms, Solution
from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, KeyParts
from fedenc.ciphers.etc import EtC
from fedenc.ciphers.etc_gray import EtCGray
from fedenc.ciphers.scramble import Scramble
from fedenc.errors import AttackError

MOST = 1 << 14  # blocks times forms of a puzzle; larger ones would take many minutes each
_AT_ONCE = 1 << 22  # pairs of blocks' sides compared at a time


def block_forms(cipher: Cipher | None) -> Forms | None:
    """What a cipher does to a block besides moving it; None: it does not move whole blocks."""
    if isinstance(cipher, Scramble):
        return Forms()
    if isinstance(cipher, EtC):
        return Forms(turned=True, negated=True, recoloured=cipher.color_shuffle)
    return Forms(turned=True, negated=True) if isinstance(cipher, EtCGray) else None


@dataclass(frozen=True)
class Jigsaw(Attack):
    """Solves scrambled blocks as a jigsaw puzzle, one image at a time.

    The extended solver of Chuman, Kurihara & Kiya tries every form that a cipher may have given to
    a block (turned, mirrored, negated, recoloured) when it looks for its neighbours. Ours compares
    sides by Gallagher's measure and finds place and form of blocks together by a beam search. Where
    images share a key, their blocks were moved alike: they are one puzzle, to which each image adds
    what it shows.

    Forms of the whole picture cannot be told from its blocks. Of them, the one is returned that is
    dark rather than light, lighter at the top than anywhere else, and red rather than blue: each is
    true of about six photographs in ten (CIFAR-10). Which side is left remains open. Of the planes
    of a gray picture, the one with most contrast is put on top.

    Args:
        effort: how many beginnings of a solution are kept in mind, at least 1; time is proportional
            to it. Where blocks are many and take many forms, fewer fit in memory and are kept.
    """

    effort: int = 16
    name: ClassVar[str] = "jigsaw"
    source: ClassVar[str] = (
        "Chuman, Kurihara & Kiya, IEICE Trans. Inf. & Syst. 2018; Gallagher, CVPR 2012"
    )
    cost: ClassVar[Cost] = "minutes"

    def __post_init__(self) -> None:
        if isinstance(self.effort, bool) or self.effort < 1:
            raise AttackError(f"effort is {self.effort!r}, expected 1 or more")

    def unsuitable(self, method: Method) -> str | None:
        cipher, forms = method.cipher, block_forms(method.cipher)
        if cipher is None or forms is None:
            return "needs a cipher that moves whole blocks: scramble, etc or etc-gray"
        rows, columns = _grid(cipher, cipher.output_shape(*method.shape))
        if rows * columns < 2:
            return "needs images of more than one block"
        size = rows * columns * forms.count
        return f"tries all {size:,} places and forms; {MOST:,} at most" if size > MOST else None

    def run(self, observation: Observation, means: Means) -> Findings:
        cipher, uploads = observation.method.cipher, observation.uploads
        forms, reason = block_forms(cipher), self.unsuitable(observation.method)
        if cipher is None or forms is None or reason:
            raise AttackError(f"{self.name} {reason}")
        if not len(uploads):
            raise AttackError("there are no uploads; expected at least one")
        images = uploads.images.cpu()
        grid = _grid(cipher, (images.shape[1], images.shape[2], images.shape[3]))
        groups = list(observation.groups())
        plain = torch.empty(len(images), *observation.method.shape, dtype=torch.uint8)
        keys: list[KeyParts] = []
        each = grid[0] * grid[1]
        at_once = max(1, _AT_ONCE // ((each * puzzle.TURNS) ** 2 * len(forms.changes)))
        shared = observation.method.shares_keys
        batches = groups if shared else torch.split(torch.cat(groups), at_once)
        for number, rows in enumerate(batches):
            blocks = functional.split_blocks(images[rows], _size(cipher))
            table = _table(blocks, forms, at_once, together=shared)
            solution = puzzle.solve(table, grid, forms, width=self.effort)
            if forms.count > 1:
                shape = images.shape[2], images.shape[3]
                pictures = puzzle.assemble(blocks, solution, forms, shape)
                form = _upright(pictures, forms, together=shared)
                solution = puzzle.as_a_whole(solution, grid, forms, form)
            key = _key(solution, forms, cipher)
            plain[rows] = cipher.invert(images[rows], key, observation.method.shape)
            keys += [tuple(part[i : i + 1] for part in key) for i in range(len(solution[0]))]
            means.report((number + 1) / len(batches), f"puzzle {len(keys)} of {len(groups)}")
        facts = {"blocks": each, "forms of a block": forms.count}
        return Findings(images=plain, key=tuple(keys), facts=facts)


def _size(cipher: Cipher) -> int:
    assert isinstance(cipher, Scramble | EtC | EtCGray)
    return cipher.block_size


def _grid(cipher: Cipher, shape: tuple[int, int, int]) -> tuple[int, int]:
    """(rows, columns) of the blocks of a ciphertext of this shape."""
    return shape[1] // _size(cipher), shape[2] // _size(cipher)


def _table(blocks: Tensor, forms: Forms, at_once: int, *, together: bool) -> Tensor:
    """Scores of ``puzzle.scores`` for each image, or their mean over all."""
    parts = (
        puzzle.scores(puzzle.differences(part, forms)) for part in torch.split(blocks, at_once)
    )
    if not together:
        return torch.cat(list(parts))
    total = next(parts).sum(0, keepdim=True)
    for part in parts:
        total += part.sum(0, keepdim=True)
    return total / len(blocks)


def _key(solution: Solution, forms: Forms, cipher: Cipher) -> KeyParts:
    """The key parts, as the cipher draws them, that a solution undoes."""
    placed, formed = solution
    order = functional.invert_permutation(placed)  # where each block of the ciphertext belongs
    if isinstance(cipher, Scramble):
        return (order,)
    formed = formed.gather(1, order)
    turns = puzzle.INVERSE[formed // len(forms.changes)]
    change = forms.between[formed % len(forms.changes), 0]
    flips = torch.tensor([255 * negate for negate, _ in forms.changes])[change].to(torch.uint8)
    if not forms.recoloured:
        return order, turns, flips
    return order, turns, flips, change % (len(forms.changes) // 2)


def _upright(pictures: Tensor, forms: Forms, *, together: bool) -> Tensor:
    """int64 (N,), or (1,) for all together: the form that makes a picture as a whole likeliest.

    ``pictures`` is uint8 (N, C, H, W); with one channel, three planes of which the first has most
    contrast, and is what counts.
    """
    values = pictures.float()
    height, width = values.shape[2:]
    planes = values.shape[1] == 1
    part = height // 3 if planes else height // 2
    light = values.mean(1)
    turns = range(puzzle.TURNS if height == width else puzzle.TRANSPOSE)
    centred = (light - light.mean((1, 2), keepdim=True)).abs() if planes else light
    turned = [puzzle.turn_grid(centred, turn) for turn in turns]
    rise = torch.stack([t[:, :part].mean((1, 2)) - t[:, -part:].mean((1, 2)) for t in turned], 1)
    means = values.mean((2, 3))
    tops = torch.stack([puzzle.turn_grid(light, t)[:, :part].mean((1, 2)) for t in turns], 1)
    if together:
        rise, means, tops = (t.mean(0, keepdim=True) for t in (rise, means, tops))
    turn = rise.argmax(1)
    level = tops.gather(1, turn[:, None])[:, 0] if planes else means.mean(1)
    negate = level >= 127.5
    if not planes:  # what is lighter at the top, is darker there once negated
        turn = torch.where(negate, rise.argmin(1), turn)
    change = negate.long() * (len(forms.changes) // 2)
    if forms.recoloured:
        order = torch.where(negate[:, None], -means, means).argsort(1, descending=True)
        change += 2 * order[:, 0] + (order[:, 1] > order[:, 2]).long()
    return turn * len(forms.changes) + change
