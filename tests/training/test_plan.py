import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc.data.augment import AUGMENTATIONS
from fedenc.training.plan import Plan, make_plan

CPU = torch.device("cpu")


def plan(images: int, views: int = 1, name: str = "none", batch: int = 7, **keywords) -> Plan:
    return make_plan(
        torch.arange(images),
        views=views,
        augmentation=AUGMENTATIONS[name],
        batch_size=batch,
        seed=keywords.get("seed", 0),
        epoch=keywords.get("epoch", 0),
        home=CPU,
        device=CPU,
    )


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 60),
    st.integers(1, 4),
    st.sampled_from(sorted(AUGMENTATIONS)),
    st.integers(1, 70),
    st.integers(1, 3),
)
def test_an_epoch_visits_every_image_once_a_copy_over_all_workers(
    images, views, name, batch, world
):
    made = plan(images, views, name, batch)
    parts = [made.batch(step, rank, world) for step in range(made.steps) for rank in range(world)]
    visited = torch.cat([rows for rows, _, _ in parts]) // views
    copies = AUGMENTATIONS[name].copies
    assert torch.bincount(visited, minlength=images).tolist() == [copies] * images
    sizes = [size for _, _, size in parts]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


def test_every_exhaustive_copy_is_visited():
    made = plan(5, name="shift-flip-all", batch=40)
    rows, draws, _ = made.batch(0)
    assert draws is not None
    seen = set(
        zip(
            rows.tolist(),
            draws.down.tolist(),
            draws.right.tolist(),
            draws.flip.tolist(),
            strict=True,
        )
    )
    assert len(seen) == 40


def test_views_are_drawn_anew_each_epoch_and_evenly():
    counts = torch.zeros(40, dtype=torch.int64)
    for epoch in range(400):
        counts += torch.bincount(plan(10, views=4, epoch=epoch).rows, minlength=40)
    chi_squared = ((counts - 100.0) ** 2 / 100).sum()
    assert chi_squared < 80  # 30 degrees of freedom: exceeded with probability 2e-6


def test_order_follows_from_seed_and_epoch_alone():
    assert torch.equal(plan(50).rows, plan(50, batch=9).rows)
    assert not torch.equal(plan(50).rows, plan(50, epoch=1).rows)
    assert not torch.equal(plan(50).rows, plan(50, seed=1).rows)
