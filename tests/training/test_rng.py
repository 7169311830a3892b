import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc import seeding
from fedenc.training import rng


def test_derived_seeds_are_pinned():
    assert seeding.derive(0, "order", 0) == 4131712284794910457
    assert seeding.derive(0, "order", 0) != seeding.derive(0, "order", 1)


@settings(max_examples=30)
@given(st.integers(0, 2**63), st.text('ab"1', max_size=8), st.text('ab"1', max_size=8))
def test_purposes_do_not_run_into_each_other(seed, one, other):
    assert seeding.derive(seed, one, other) != seeding.derive(seed, one + other)
    assert seeding.derive(seed, one, 1) != seeding.derive(seed, one, "1")


def test_a_stream_continues_where_it_stopped_and_leaves_the_caller_alone():
    whole = rng.GlobalStream(5, "dropout")
    with whole.active():
        expected = torch.rand(10)
    parted = rng.GlobalStream(5, "dropout")
    before = torch.get_rng_state()
    with parted.active():
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    resumed = rng.GlobalStream(6, "dropout")
    resumed.restore(parted.state())
    with resumed.active():
        second = torch.rand(6)
    assert torch.equal(torch.cat([first, second]), expected)


def test_an_error_inside_a_seeded_block_puts_the_state_back():
    before = torch.get_rng_state()
    try:
        with rng.seeded(1, "initialisation"):
            torch.rand(1)
            raise ValueError
    except ValueError:
        pass
    assert torch.equal(torch.get_rng_state(), before)
