"""Canonical forms: what no key changes, and all that no key changes."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedenc import orbits
from fedenc.ciphers import Cipher, functional, make
from fedenc.ciphers.base import KeyParts
from fedenc.data import load
from fedenc.keys import KeyRing, Keystream, new_nonce
from fedenc.orbits import rows as orbit_rows

CIFAR10 = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cifar10"
VARIANTS: list[tuple[str, dict]] = [
    ("none", {}),
    ("pixel", {}),
    ("pixel", {"color_shuffle": False}),
    ("etc", {}),
    ("etc", {"color_shuffle": False}),
    ("etc", {"block_size": 8}),
    ("etc-gray", {}),
    ("etc-gray", {"block_size": 4, "subsampling": "4:2:0"}),
    ("scramble", {"block_size": 4}),
    ("scramble", {}),
    ("scramble", {"block_size": 16}),
    ("le", {}),
    ("le", {"compat": "icce2018"}),
    ("ele", {}),
]
IDS = ["-".join((name, *map(str, params.values()))) for name, params in VARIANTS]
# without a colour step any number of channels will do
FREE = [("none", {}), ("pixel", {"color_shuffle": False}), ("etc", {"color_shuffle": False})]
FREE += [("scramble", {}), ("le", {}), ("ele", {})]
LEVELS = (1, 2, 4, 256)  # few values give many ties, which must be resolved alike

every_cipher = pytest.mark.parametrize(
    "cipher", [make(name, **params) for name, params in VARIANTS], ids=IDS
)


def images(seed: int, *shape: int, levels: int = 256) -> Tensor:
    values = np.random.default_rng(seed).integers(0, levels, shape) * (255 // max(1, levels - 1))
    return torch.from_numpy(values.astype(np.uint8))


def encrypted(cipher: Cipher, plain: Tensor) -> Tensor:
    """Under fresh, independent keys."""
    ids = np.arange(len(plain))
    return cipher.encrypt(
        plain,
        KeyRing.generate().keystream(
            method=cipher.name, policy="image", purpose="train", nonce=new_nonce(), ids=ids
        ),
    )


def canonical(cipher: Cipher, images: Tensor) -> Tensor:
    found = cipher.canonical(images)
    assert found is not None
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)
    return found


def check(cipher: Cipher, plain: Tensor) -> None:
    layout = cipher.layout(plain)
    assert layout.shape == (len(plain), *cipher.output_shape(*plain.shape[1:]))
    form = canonical(cipher, layout)
    assert torch.equal(canonical(cipher, encrypted(cipher, plain)), form)
    assert torch.equal(canonical(cipher, form), form)
    by_name = orbits.canonical(cipher.name, cipher.params())
    assert by_name is not None
    assert torch.equal(by_name(layout), form)


@given(
    st.sampled_from(VARIANTS),
    st.integers(0, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(LEVELS),
    st.integers(0, 2**31),
)
def test_no_key_changes_the_form(
    variant: tuple[str, dict], n: int, height: int, width: int, levels: int, seed: int
) -> None:
    cipher = make(variant[0], **variant[1])
    check(cipher, images(seed, n, 3, height, width, levels=levels))


@given(
    st.sampled_from(FREE),
    st.sampled_from((1, 2, 5)),
    st.sampled_from(LEVELS),
    st.integers(0, 2**31),
)
def test_no_key_changes_the_form_of_images_without_colours(
    variant: tuple[str, dict], channels: int, levels: int, seed: int
) -> None:
    check(make(variant[0], **variant[1]), images(seed, 3, channels, 12, 20, levels=levels))


@every_cipher
def test_gray_images_and_plain_areas_have_a_form(cipher: Cipher) -> None:
    """There, many forms of a block are equal in sums and moments, and some in all bytes."""
    gray = images(1, 4, 1, 32, 32).expand(-1, 3, -1, -1).clone()
    gray[1, :, :20] = 255
    gray[2] = gray[2, 0, 0, 0]
    gray[3, :, :, 16:] = gray[3, :, :, :16].flip(-1)
    check(cipher, gray)


@every_cipher
def test_a_batch_is_its_images_one_by_one(cipher: Cipher, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = cipher.layout(images(2, 7, 3, 32, 32))
    whole = canonical(cipher, layout)
    monkeypatch.setattr("fedenc.orbits.forms._SLICE_BYTES", {"cpu": 2 * layout[0].numel()})
    assert torch.equal(canonical(cipher, layout), whole)
    wide = layout.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(canonical(cipher, wide), whole)
    assert torch.equal(layout, cipher.layout(images(2, 7, 3, 32, 32)))  # left as it was


def test_rows_of_one_hash_are_sorted_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = images(3, 5, 30, 24, levels=2)
    shuffled = rows[:, torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    monkeypatch.setattr(orbit_rows, "_hash", lambda words: torch.zeros_like(words[..., 0]))
    found = orbit_rows.sort_rows(shuffled)
    assert torch.equal(found, orbit_rows.sort_rows(rows))
    sums = found.sum(-1, dtype=torch.int64)
    assert bool((sums.diff(dim=1) >= 0).all())
    assert [sorted(map(bytes, one)) for one in found.numpy()] == [
        sorted(map(bytes, one)) for one in rows.numpy()
    ]


# The form lies in the orbit: for each method, a search for a key that makes it of the image.


def pixel_key(cipher: Cipher, plain: Tensor, form: Tensor) -> KeyParts:
    """For every pixel, by trying 8 masks and, with colours, 6 orders."""
    _, _, height, width = plain.shape
    flips = torch.zeros_like(plain)
    codes = torch.zeros(1, height, width, dtype=torch.uint8)
    solved = torch.zeros(1, height, width, dtype=torch.bool)
    for bits, code in product(product((0, 255), repeat=3), range(6 if len_key(cipher) == 2 else 1)):
        mask = torch.tensor(bits, dtype=torch.uint8).view(1, 3, 1, 1).expand_as(plain)
        key = mask, torch.full_like(codes, code)
        fits = (cipher.apply(plain, key[: len_key(cipher)]) == form).all(1)
        flips = torch.where(fits[:, None], mask, flips)
        codes = torch.where(fits, key[1], codes)
        solved |= fits
    assert bool(solved.all())
    return (flips, codes)[: len_key(cipher)]


def len_key(cipher: Cipher) -> int:
    return 2 if cipher.params()["color_shuffle"] else 1


def block_key(cipher: Cipher, layout: Tensor, form: Tensor) -> KeyParts:
    """Every block of the form is one of the forms, tried one by one, of an unused source block."""
    size = int(cipher.params()["block_size"])
    colors = bool(cipher.params().get("color_shuffle"))
    turned = cipher.name != "scramble"
    source, target = functional.split_blocks(layout, size), functional.split_blocks(form, size)
    count = source.shape[1]
    ways = product(
        range(8 if turned else 1), (0, 255) if turned else (0,), range(6 if colors else 1)
    )
    known: dict[bytes, list[tuple[int, ...]]] = defaultdict(list)
    for turn, flip, code in ways:
        moved = functional.turn_blocks(source, torch.full((1, count), turn, dtype=torch.uint8))
        moved = moved ^ flip
        if colors:
            moved = functional.shuffle_block_colors(moved, torch.full((1, count), code))
        for place, block in enumerate(moved[0].numpy()):
            known[block.tobytes()].append((place, turn, flip, code))
    used: set[int] = set()
    found = []
    for block in target[0].numpy():
        way = next(w for w in known[block.tobytes()] if w[0] not in used)
        used.add(way[0])
        found.append(way)
    order, turns, flips, codes = torch.tensor(found).T[:, None]
    if not turned:
        return (order,)
    scrambling = order, turns.to(torch.uint8), flips.to(torch.uint8)
    return (*scrambling, codes) if colors else scrambling


def nibble_key(cipher: Cipher, layout: Tensor, form: Tensor) -> KeyParts:
    """LE: every row of the form is an unused row of the image or its complement."""
    source = functional.split_nibbles(functional.split_blocks(layout, 4))[0].T.numpy()
    target = functional.split_nibbles(functional.split_blocks(form, 4))[0].T.numpy()
    order, flips = matched(source, target)
    return order[None, None], flips[None, None]


def matched(source: np.ndarray, target: np.ndarray) -> tuple[Tensor, Tensor]:
    """The order, and the flips before it, that make the rows of target of those of source."""
    free: dict[bytes, list[int]] = defaultdict(list)
    for place, row in enumerate(source):
        free[min(row.tobytes(), (15 - row).tobytes())].append(place)
    order = [free[min(row.tobytes(), (15 - row).tobytes())].pop() for row in target]
    flips = torch.zeros(len(source), dtype=torch.uint8)
    for place, row in zip(order, target, strict=True):
        flips[place] = int(not np.array_equal(source[place], row))
    return torch.tensor(order), flips


def many_nibbles_key(cipher: Cipher, layout: Tensor, form: Tensor) -> KeyParts:
    """ELE: blocks by their folded half-bytes, then those one by one."""
    source = functional.split_nibbles(functional.split_blocks(layout, 4))[0].numpy()
    target = functional.split_nibbles(functional.split_blocks(form, 4))[0].numpy()
    sums = [np.sort(np.minimum(part, 15 - part), axis=1) for part in (source, target)]
    free: dict[bytes, list[int]] = defaultdict(list)
    for place, row in enumerate(sums[0]):
        free[row.tobytes()].append(place)
    places = torch.tensor([free[row.tobytes()].pop() for row in sums[1]])
    keys = {
        place: matched(source[place][:, None], target[j][:, None])
        for j, place in enumerate(places.tolist())
    }
    order, flips = (torch.stack([keys[i][part] for i in range(len(keys))]) for part in (0, 1))
    return order[None], flips[None], places[None]


SEARCHES: dict[str, Callable[[Cipher, Tensor, Tensor], KeyParts]] = {
    "none": lambda cipher, layout, form: (),
    "pixel": pixel_key,
    "etc": block_key,
    "etc-gray": block_key,
    "scramble": block_key,
    "le": nibble_key,
    "ele": many_nibbles_key,
}


@pytest.mark.parametrize("levels", LEVELS)
@every_cipher
def test_some_key_makes_the_form_of_the_image(cipher: Cipher, levels: int) -> None:
    if cipher.params().get("compat"):
        pytest.skip("its form is that of LE, which has more keys")
    plain = images(levels, 1, 3, 30, 33, levels=levels)
    form = canonical(cipher, cipher.layout(plain))
    key = SEARCHES[cipher.name](cipher, cipher.layout(plain), form)
    for part in key:
        if part.dtype == torch.int64 and cipher.name in ("le", "ele"):
            assert torch.equal(part.sort(-1).values, torch.arange(part.shape[-1]).expand_as(part))
    assert torch.equal(cipher.apply(plain, key), form)


def test_forms_tell_images_of_different_orbits_apart() -> None:
    """All 2^3 · 6 ciphertexts of a pixel share a form with no other pixel."""
    cipher = make("pixel")
    values = torch.tensor([0, 1, 3, 252, 254, 255], dtype=torch.uint8)
    pixels = torch.cartesian_prod(values, values, values).view(-1, 3, 1, 1)
    forms: dict[bytes, set[bytes]] = defaultdict(set)
    for pixel, form in zip(pixels, canonical(cipher, pixels), strict=True):
        forms[form.numpy().tobytes()].add(pixel.numpy().tobytes())
    for group in forms.values():
        some = next(iter(group))
        orbit = {
            bytes(masked[i] for i in order)
            for masked in product(*((v, 255 - v) for v in some))
            for order in permutations(range(3))
        }
        assert group == orbit


def test_logistic_rc4_has_no_form() -> None:
    cipher = make("logistic-rc4")
    assert cipher.canonical(images(0, 2, 3, 8, 8)) is None
    assert orbits.canonical(cipher.name, cipher.params()) is None


@pytest.fixture(scope="module")
def cifar10() -> Tensor:
    if not CIFAR10.is_dir():
        pytest.skip(f"needs CIFAR-10 as Parquet files in {CIFAR10}")
    return torch.from_numpy(np.array(load("cifar10", root=CIFAR10).test.images))


@pytest.mark.slow
@every_cipher
def test_the_forms_of_cifar10_are_as_distinct_as_its_images(
    cipher: Cipher, cifar10: Tensor
) -> None:
    assert len(cifar10) == 10_000
    layout = cipher.layout(cifar10)
    assert distinct(canonical(cipher, layout)) == distinct(layout)
    some = encrypted(cipher, cifar10[:500])
    assert torch.equal(canonical(cipher, some), canonical(cipher, layout[:500]))


def distinct(batch: Tensor) -> int:
    return len({image.tobytes() for image in batch.numpy()})


@dataclass(frozen=True)
class Complement(Cipher):
    """A plug-in: one bit complements the whole image."""

    name: ClassVar[str] = "complement"

    def draw(self, keystream: Keystream, channels: int, height: int, width: int) -> KeyParts:
        return (torch.from_numpy(keystream.masks(1)),)

    def apply(self, images: Tensor, key: KeyParts) -> Tensor:
        return images ^ key[0][..., None, None]

    def invert(self, images: Tensor, key: KeyParts, shape: tuple[int, int, int]) -> Tensor:
        return self.apply(images, key)

    def key_space_log2(self, channels: int, height: int, width: int) -> float:
        return 1.0


class Canonical(Complement):
    def canonical(self, images: Tensor) -> Tensor:
        return torch.where(images[:, :1, :1, :1] > 127, 255 - images, images)


def test_plug_ins_may_have_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Cipher] = {"with": Canonical(), "without": Complement()}
    monkeypatch.setattr("fedenc.ciphers.registry.make", lambda name, **params: found[name])
    assert orbits.canonical("without", {}) is None
    form = orbits.canonical("with", {})
    assert form is not None
    plain = images(0, 8, 3, 5, 5)
    assert torch.equal(form(encrypted(Canonical(), plain)), form(plain))
