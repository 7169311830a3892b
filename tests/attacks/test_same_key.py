"""What uploads alone give away where they share a key."""

import pytest
import torch
from cifar_targets import cifar
from torch import Tensor
from victims import attacked, victims

from fedenc import ciphers
from fedenc.attacks import make
from fedenc.attacks.assembly import assemble, composed, turn_cells
from fedenc.attacks.base import Method
from fedenc.attacks.correlation import red_green_blue, strongest_tree
from fedenc.attacks.same_key import PrincipalComponent
from fedenc.attacks.target import Target
from fedenc.ciphers import functional
from fedenc.errors import AttackError
from fedenc.images.metrics import ssim

Params = dict[str, bool | int]
NP: Params = {"color_shuffle": False}


def share_of_mask(target: Target, attack: PrincipalComponent) -> float:
    """Right bits, up to complementing all of them."""
    found = attacked(attack, target)
    assert found.complement
    assert found.key is not None
    share = (found.key[0][0] == target.key[0][0]).double().mean().item()
    return max(share, 1 - share)


def mirrored_or_not(found: Tensor, true: Tensor) -> float:
    """Share of right bytes; no statistics tell an image from its mirror image."""
    return max((one == true).double().mean().item() for one in (found, found.flip(3)))


@pytest.mark.parametrize(("count", "share"), [(20, 0.97), (100, 0.97), (500, 0.995)])
def test_mask_of_cifar_images(count: int, share: float) -> None:
    found = [
        share_of_mask(cifar("pixel", "same", count, start, **NP), PrincipalComponent())
        for start in (0, 3000, 6000)
    ]
    assert sorted(found)[1] >= share
    assert sorted(found)[1] == 1


def test_first_component_alone_gives_most_of_the_mask() -> None:
    alone = PrincipalComponent(neighbours=False)
    found = [share_of_mask(cifar("pixel", "same", 100, s, **NP), alone) for s in (0, 3000, 6000)]
    assert 0.95 < sorted(found)[1] < 1


@pytest.mark.parametrize("cipher", ["pixel", "le", "scramble"])
def test_every_byte_from_a_hundred_uploads(cipher: str) -> None:
    target = cifar(cipher, "same")
    found = attacked(PrincipalComponent(), target)
    assert found.images is not None
    assert torch.equal(found.images, target.plain)
    assert found.key is not None
    assert all(map(torch.equal, found.key[0], (part.long() for part in target.key[0])))


@pytest.mark.parametrize("params", [{}, {"block_size": 8}, NP], ids=str)
def test_etc_from_a_hundred_uploads_but_for_the_mirror(params: Params) -> None:
    target = cifar("etc", "same", **params)
    found = attacked(PrincipalComponent(), target)
    assert found.images is not None
    assert mirrored_or_not(found.images, target.plain) == 1


def test_ele_is_recognisable_from_three_hundred_uploads() -> None:
    target = cifar("ele", "same", 300)
    found = attacked(PrincipalComponent(), target)
    assert found.images is not None
    errors = [
        (one.float() - target.plain.float()).abs().mean()
        for one in (found.images, found.images.flip(3))
    ]
    assert min(errors) < 15  # of another image it is about 70


def test_brightness_of_etc_gray() -> None:
    target = cifar("etc-gray", "same")
    found = attacked(PrincipalComponent(), target)
    assert found.images is not None
    assert found.key is not None
    true = functional.rgb_to_ycbcr(target.plain)[:, :1].expand(target.plain.shape)
    assert mirrored_or_not(found.images, true) == 1
    assert all((part[0] >= 0).sum() == 16 for part in found.key[0])


@pytest.mark.parametrize("cipher", ["pixel", "le"])
def test_photographs_without_sky_are_not_complemented(cipher: str) -> None:
    target = victims(cipher, "same")
    found = attacked(PrincipalComponent(), target)
    assert found.images is not None
    assert ssim(found.images, target.plain).mean() > 0.4


def test_each_participant_has_its_own_key() -> None:
    target = cifar("pixel", "client", 200)
    found = attacked(PrincipalComponent(), target)
    assert found.key is not None
    for key, true in zip(found.key, target.key, strict=True):
        assert torch.equal(key[1], true[1].long())


def test_independent_keys_give_nothing() -> None:
    target = victims("pixel", "image", 40)
    with pytest.raises(AttackError, match="needs images that share a key, but keys are indep"):
        attacked(PrincipalComponent(), target)


def test_images_of_le_are_recognisable_under_independent_keys() -> None:
    """The blocks of an image share its key."""
    target = cifar("le", "image", 40)
    found = attacked(PrincipalComponent(), target)
    assert found.images is not None
    small = [
        torch.nn.functional.avg_pool2d(x.float().mean(1), 4) for x in (found.images, target.plain)
    ]
    alike = [
        torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1].abs()
        for a, b in zip(*small, strict=True)
    ]
    assert torch.stack(alike).median() > 0.9


def test_too_few_uploads() -> None:
    with pytest.raises(AttackError, match="8 or more uploads under one key, found 5"):
        attacked(PrincipalComponent(), victims("pixel", "client", 20))


def test_what_it_does_not_apply_to() -> None:
    attack = PrincipalComponent()
    for name in ("logistic-rc4", "none"):
        assert attack.unsuitable(Method(name, ciphers.make(name), "same", (3, 32, 32)))
    le = Method("le", ciphers.make("le"), "same", (3, 4, 4))
    assert "two blocks" in str(attack.unsuitable(le))
    with pytest.raises(AttackError, match="neighbours is 1"):
        make("principal-component", neighbours=1)


def test_tree_is_the_heaviest_and_reaches_every_node() -> None:
    first, second = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 3])
    walk = list(strongest_tree(first, second, torch.tensor([1.0, 3.0, 2.0, 0.1]), 4))
    assert {edge for _, _, edge in walk} == {1, 2, 3}
    reached = {0}
    for parent, child, _ in walk:
        assert parent in reached
        reached.add(child)
    assert reached == {0, 1, 2, 3}


def test_assembly_finds_turned_and_complemented_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(200, 1, 12, 16, generator=generator).cumsum(2).cumsum(3)
    blocks = smooth[:, 0].unfold(1, 4, 4).unfold(2, 4, 4).flatten(1, 2)  # 3 × 4 blocks
    order = torch.randperm(12, generator=generator)
    turns = torch.randint(8, (12,), generator=generator)
    turned = torch.stack(
        [
            turn_cells(blocks[:, k].permute(1, 2, 0), int(turn)).permute(2, 0, 1)
            for k, turn in zip(order, turns, strict=True)
        ],
        1,
    )
    turned[:, ::2] *= -1
    found = assemble(turned, 3, 4, turned=True)
    placed = order[found.block].view(3, 4)
    right = torch.arange(12).view(3, 4)
    assert any(torch.equal(turn_cells(placed, code), right) for code in range(4))


def test_turns_compose() -> None:
    table = composed()
    cells = torch.arange(6).view(2, 3)
    for first in range(8):
        for second in range(8):
            once = turn_cells(cells, int(table[first, second]))
            assert torch.equal(once, turn_cells(turn_cells(cells, first), second))


def test_colours_of_photographs() -> None:
    images = cifar("none", "same", 500).plain.float()
    for order in ([0, 1, 2], [2, 0, 1], [1, 0, 2]):
        found = red_green_blue(images[:, order])
        assert [order[k] for k in found.tolist()] == [0, 1, 2]
