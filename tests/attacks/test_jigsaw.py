"""Solving scrambled blocks as a puzzle, and measuring how far it was solved."""

import pytest
import torch
from torch import Tensor
from victims import attacked, photos, victims

from fedenc import ciphers
from fedenc.attacks import puzzle
from fedenc.attacks.base import Means
from fedenc.attacks.jigsaw import Jigsaw, block_forms
from fedenc.attacks.measures_blocks import block_scores
from fedenc.attacks.puzzle import Forms
from fedenc.attacks.target import Target, keyed, make_target
from fedenc.ciphers import functional
from fedenc.errors import AttackError
from fedenc.keys import Policy

ALL = Forms(turned=True, negated=True, recoloured=True)


def gradients(count: int, size: int = 32) -> Tensor:
    """uint8 (N, 3, size, size): smooth images, no two parts of which are alike."""
    generator = torch.Generator().manual_seed(7)
    axis = torch.linspace(0, 1, size)
    slopes = torch.rand(count, 3, 4, generator=generator) + 0.2
    down, across = axis[:, None], axis[None]
    terms = torch.stack((down + 0 * across, across + 0 * down, down * across, (down - across) ** 2))
    values = torch.einsum("nck,khw->nchw", slopes, terms)
    values += 0.2 * torch.sin(9 * values + torch.arange(3).view(1, 3, 1, 1))
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    return ((values - low) / (high - low) * 255).to(torch.uint8)


def scrambled(images: Tensor, cipher: str, policy: Policy, **params: bool | int | str) -> Target:
    owners = torch.arange(len(images)) % 2
    protections = keyed(ciphers.make(cipher, **params), policy, 2)
    return make_target(protections, images, torch.zeros_like(owners), owners)


def shares(target: Target, estimate: Tensor | None, **params: float) -> tuple[float, ...]:
    cipher = target.method.cipher
    assert estimate is not None
    block = int(target.method.params["block_size"] or 0)
    found = block_scores(estimate, target.plain, block, block_forms(cipher), **params)
    return tuple(share.mean().item() for share in found)


@pytest.mark.parametrize(
    ("cipher", "params"),
    [
        ("scramble", {"block_size": 8}),
        ("scramble", {"block_size": 4}),
        ("etc", {"block_size": 8}),
        ("etc", {"block_size": 8, "color_shuffle": False}),
    ],
)
def test_smooth_images_are_solved(cipher: str, params: dict[str, int]) -> None:
    target = scrambled(gradients(6), cipher, "image", **params)
    found = attacked(Jigsaw(), target)
    assert shares(target, found.images) == (1, 1, 1)
    if cipher == "scramble":
        assert torch.equal(found.images, target.plain)
        for guess, true in zip(found.key, target.key, strict=True):
            assert torch.equal(guess[0], true[0])


@pytest.mark.parametrize("policy", ["same", "client"])
@pytest.mark.parametrize("cipher", ["scramble", "etc"])
def test_images_under_one_key_are_one_puzzle(cipher: str, policy: Policy) -> None:
    target = victims(cipher, policy, count=48, owners=2, block_size=8)
    found = attacked(Jigsaw(), target)
    assert shares(target, found.images) == (1, 1, 1)
    assert found.key is not None
    assert len(found.key) == len(target.key)


def test_a_key_explains_the_ciphertext_up_to_a_form_of_the_whole() -> None:
    target = scrambled(gradients(4), "etc", "image", block_size=8)
    found = attacked(Jigsaw(), target)
    cipher = target.method.cipher
    assert cipher is not None
    assert found.key is not None
    for number, key in enumerate(found.key):
        assert [part.shape for part in key] == [part.shape for part in target.key[number]]
        again = cipher.apply(found.images[number : number + 1], key)
        assert torch.equal(again[0], target.uploads.images[number])


def test_gray_planes_are_solved_where_images_share_a_key() -> None:
    target = victims("etc-gray", "same", count=60, block_size=8)
    found = attacked(Jigsaw(), target)
    cipher = target.method.cipher
    assert cipher is not None
    (key,) = found.key
    rows, columns = 12, 4
    true = target.key[0][0].view(rows, columns)
    guess = key[0].view(rows, columns)
    # blocks of one plane that were neighbours are neighbours again
    pairs = {frozenset((int(a), int(b))) for a, b in _neighbours(_placed(true, rows, columns))}
    again = {frozenset((int(a), int(b))) for a, b in _neighbours(_placed(guess, rows, columns))}
    assert len(pairs & again) > 0.7 * len(pairs)
    assert found.images.shape == target.plain.shape


def _placed(order: Tensor, rows: int, columns: int) -> Tensor:
    return functional.invert_permutation(order.flatten()).view(rows, columns)


def _neighbours(grid: Tensor) -> list[tuple[Tensor, Tensor]]:
    across = zip(grid[:, :-1].flatten(), grid[:, 1:].flatten(), strict=True)
    down = zip(grid[:-1].flatten(), grid[1:].flatten(), strict=True)
    return [*across, *down]


def test_noise_is_not_solved() -> None:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(256, (40, 3, 32, 32), generator=generator, dtype=torch.uint8)
    target = scrambled(noise, "scramble", "image", block_size=8)
    direct, neighbour, _ = shares(target, attacked(Jigsaw(), target).images)
    assert direct < 3 / 16  # by chance 1/16
    assert neighbour < 3 / 16


def test_equal_observations_give_equal_findings() -> None:
    target = victims("etc", "image", count=6, block_size=8)
    first, second = (attacked(Jigsaw(effort=4), target, seed) for seed in (0, 1))
    assert torch.equal(first.images, second.images)


def test_more_effort_solves_more_photographs() -> None:
    target = victims("etc", "image", count=12, block_size=8)
    least, most = (shares(target, attacked(Jigsaw(n), target).images)[1] for n in (1, 16))
    assert most > least
    assert most > 0.3


def test_images_that_do_not_divide_into_blocks_get_their_size_back() -> None:
    target = scrambled(gradients(2, size=30), "etc", "same", block_size=8)
    assert attacked(Jigsaw(), target).images.shape == target.plain.shape


def test_it_reports_every_puzzle() -> None:
    seen: list[float] = []
    target = victims("etc", "client", count=24, block_size=8)
    Jigsaw().run(target.observe(), Means(report=lambda done, text: seen.append(done)))
    assert seen == [0.25, 0.5, 0.75, 1]


def test_what_it_cannot_do_is_said() -> None:
    reason = Jigsaw().unsuitable(victims("pixel", "image", count=8).method)
    assert reason == "needs a cipher that moves whole blocks: scramble, etc or etc-gray"
    one = scrambled(gradients(2, size=8), "scramble", "image", block_size=8)
    assert Jigsaw().unsuitable(one.method) == "needs images of more than one block"
    many = scrambled(gradients(2, size=64), "etc", "image", block_size=4)
    assert Jigsaw().unsuitable(many.method) == "tries all 24,576 places and forms; 16,384 at most"
    with pytest.raises(AttackError, match="effort is 0, expected 1 or more"):
        Jigsaw(effort=0)
    target = victims("scramble", "image", count=8)
    observation = target.observe()
    observation.uploads = observation.uploads.rows(torch.arange(0))
    with pytest.raises(AttackError, match="no uploads"):
        Jigsaw().run(observation, Means())


def test_turns_compose_as_applied() -> None:
    block = torch.arange(16).view(1, 1, 1, 4, 4)
    codes = [torch.tensor([[code]]) for code in range(puzzle.TURNS)]
    for a in range(puzzle.TURNS):
        for b in range(puzzle.TURNS):
            twice = functional.turn_blocks(functional.turn_blocks(block, codes[a]), codes[b])
            once = functional.turn_blocks(block, codes[int(puzzle.AFTER[a, b])])
            assert torch.equal(twice, once)


def test_the_whole_in_another_form_is_put_together_in_it() -> None:
    images = photos().images[: ALL.count]
    blocks = functional.split_blocks(images, 8)
    each = blocks.shape[1]
    solution = torch.arange(each).expand(len(images), each), torch.zeros(1, each, dtype=torch.int64)
    solution = solution[0], solution[1].expand(len(images), each)
    form = torch.arange(ALL.count)
    moved = puzzle.as_a_whole(solution, (4, 4), ALL, form)
    found = puzzle.assemble(blocks, moved, ALL, (32, 32))
    turned = torch.stack(
        [puzzle.turn_grid(i, f // 12) for i, f in zip(images, form.tolist(), strict=True)]
    )
    wanted = ALL.change(turned, 1, whole=255)[form % 12, form]
    assert torch.equal(found, wanted)
    assert block_scores(found, images, 8, ALL).direct.eq(1).all()


def test_scores_count_what_they_say() -> None:
    image = photos().images[:1]
    blocks = functional.split_blocks(image, 8)
    order = torch.arange(16)
    order[[0, 1]] = order[[1, 0]]  # in a corner: 14 of 16 are in place, 20 of 24 pairs right
    moved = functional.merge_blocks(blocks[:, order], 32, 32)
    assert [share.item() for share in block_scores(moved, image, 8)] == [14 / 16, 20 / 24, 14 / 16]
    shifted = functional.merge_blocks(
        blocks[:, torch.arange(16).view(4, 4).roll(1, 1).flatten()], 32, 32
    )
    direct, neighbour, largest = (share.item() for share in block_scores(shifted, image, 8))
    assert (direct, neighbour, largest) == (0, 20 / 24, 12 / 16)
    assert [share.item() for share in block_scores(image.flip(2), image, 8, ALL)] == [1, 1, 1]
    with pytest.raises(AttackError, match="whole blocks of 5×5"):
        block_scores(image, image, 5)
