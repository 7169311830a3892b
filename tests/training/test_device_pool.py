import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc.training.pool import Pool, fits, room

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 30), max_size=9), st.integers(0, 2**31))
def test_a_streamed_pool_delivers_what_a_resident_one_does(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (25, 3, 4, 5), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 9, (25,), generator=generator)
    rows = [torch.randint(0, 25, (size,), generator=generator) for size in sizes]
    streamed = list(Pool(images, labels, CPU, resident=False).batches(iter(rows)))
    resident = list(Pool(images, labels, CPU).batches(iter(rows)))
    assert len(streamed) == len(resident) == len(rows)
    for part, one, other in zip(rows, streamed, resident, strict=True):
        assert torch.equal(one[0], images[part])
        assert torch.equal(other[0], images[part])
        assert torch.equal(one[1], other[1])


def test_a_stream_can_be_left_in_the_middle():
    pool = Pool(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), torch.arange(9), CPU, resident=False)
    batches = pool.batches(torch.arange(9).split(2))
    assert next(batches)[1].tolist() == [0, 1]
    batches.close()


def test_the_pool_is_not_copied_where_it_already_is():
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    assert Pool(images, torch.zeros(4, dtype=int), CPU).images.data_ptr() == images.data_ptr()


def test_room_is_on_the_device_only_where_the_pool_fits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert fits(60, torch.device("cuda"))
    assert not fits(61, torch.device("cuda"))
    assert fits(10**15, CPU)
    images, labels = room(7, (1, 3, 3), torch.device("cuda"))
    assert images.device == labels.device == CPU
    assert (images.shape, images.dtype) == ((7, 1, 3, 3), torch.uint8)
    assert (labels.shape, labels.dtype) == ((7,), torch.int64)
