import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from fedenc.data import augment
from fedenc.data.augment import AUGMENTATIONS, Augmentation, GridMask
from fedenc.errors import TrainingError

shapes = st.tuples(
    st.integers(1, 5), st.sampled_from([1, 3, 4]), st.integers(4, 13), st.integers(4, 13)
)


def pixels(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(shapes, st.integers(0, 255), st.integers(0, 2**31))
def test_shift_and_flip_is_what_torchvision_does_to_each_image(shape, fill, seed):
    images = pixels(shape, seed)
    generator = source(seed)
    down, right = torch.randint(-20, 21, (2, shape[0]), generator=generator)
    flip = torch.randint(2, (shape[0],), generator=generator).bool()
    moved = augment.shift_and_flip(images, down, right, flip, fill=fill)
    for n in range(shape[0]):
        expected = tv.horizontal_flip(images[n]) if flip[n] else images[n]
        expected = tv.affine(
            expected,
            angle=0.0,
            translate=[int(right[n]), int(down[n])],
            scale=1.0,
            shear=[0.0],
            fill=[float(fill)],
        )
        assert torch.equal(moved[n], expected)


@given(shapes)
def test_the_identity_changes_nothing(shape):
    images = pixels(shape)
    drawn = augment.draw(AUGMENTATIONS["none"], torch.zeros(shape[0], dtype=torch.int64), source())
    assert torch.equal(augment.apply(images, drawn), images)


@pytest.mark.parametrize(
    ("name", "copies"), [("flip-all", 2), ("shift-all", 4), ("shift-flip-all", 8), ("crop-flip", 1)]
)
def test_the_exhaustive_sets_have_the_published_sizes(name, copies):
    assert AUGMENTATIONS[name].copies == copies
    images = pixels((3, 3, 12, 12))
    expanded = augment.expand(images, AUGMENTATIONS[name], source())
    assert expanded.shape == (3 * copies, 3, 12, 12)
    assert len({bytes(image.flatten().tolist()) for image in expanded}) == 3 * copies


def test_exhaustive_copies_are_grouped_by_image_and_hold_the_original_first():
    images = pixels((4, 3, 16, 16))
    expanded = augment.expand(images, AUGMENTATIONS["shift-flip-all"], source(), fill=127)
    assert torch.equal(expanded[::8], images)
    assert torch.equal(expanded[1::8], images.flip(-1))
    assert torch.equal(expanded[6::8][:, :, 4:, 4:], images[:, :, :-4, :-4])
    assert (expanded[6::8][:, :, :4] == 127).all()


def test_random_crop_draws_every_offset_equally_often():
    drawn = augment.draw(Augmentation(pad=4, flip=True), torch.zeros(81_000, dtype=int), source())
    counts = torch.bincount((drawn.down + 4) * 9 + drawn.right + 4, minlength=81).double()
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_squared < 140  # 80 degrees of freedom: exceeded with probability 4e-5
    assert abs(drawn.flip.double().mean() - 0.5) < 0.01


def test_gridmask_drops_the_share_that_its_parameters_name():
    mask = GridMask(shortest=10, longest=10, keep=0.4, probability=1.0)
    images = torch.full((500, 3, 30, 30), 200, dtype=torch.uint8)
    drawn = augment.draw(Augmentation(gridmask=mask), torch.zeros(500, dtype=int), source())
    masked = augment.apply(images, drawn, fill=7)
    assert set(masked.unique().tolist()) == {7, 200}
    assert ((masked == 7).sum(dim=(1, 2, 3)) == 36 * 9 * 3).all()


def test_gridmask_squares_are_square_and_leave_unmasked_images_alone():
    grid = torch.tensor([[8, 3, 0, 0], [0, 3, 1, 1]])
    images = torch.ones(2, 1, 16, 16, dtype=torch.uint8)
    masked = augment.mask_grid(images, grid)
    lost = torch.zeros(16, 16, dtype=torch.bool)
    for row in (3, 11):
        for column in (3, 11):
            lost[row : row + 5, column : column + 5] = True
    assert torch.equal(masked[0, 0] == 0, lost)
    assert torch.equal(masked[1], images[1])


def test_gridmask_probability():
    mask = GridMask(probability=0.25)
    drawn = augment.draw(Augmentation(gridmask=mask), torch.zeros(10_000, dtype=int), source())
    assert drawn.grid is not None
    assert abs((drawn.grid[:, 0] > 0).double().mean() - 0.25) < 0.02


def test_a_draw_replays():
    images = pixels((6, 3, 10, 10))
    copy = torch.zeros(6, dtype=torch.int64)
    chosen = AUGMENTATIONS["crop-flip-gridmask"]
    first, second = (augment.apply(images, augment.draw(chosen, copy, source(3))) for _ in range(2))
    assert torch.equal(first, second)
    part = augment.draw(chosen, copy, source(3))[2:5]
    assert torch.equal(augment.apply(images[2:5], part), first[2:5])


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(TrainingError, match=r"'crops'; expected one of none, flip, crop"):
        augment.named("crops")
