import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedenc.training.training_set import TrainingSet, fits, room, stream

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 30), max_size=9), st.integers(0, 2**31))
def test_a_stream_delivers_what_is_gathered_on_the_device(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (25, 3, 4, 5), dtype=torch.uint8, generator=generator)
    data = TrainingSet(images, torch.randint(0, 9, (25,), generator=generator))
    rows = [torch.randint(0, 25, (size,), generator=generator) for size in sizes]
    streamed = list(stream(data, iter(rows), CPU))
    gathered = list(data.batches(iter(rows), CPU))
    assert len(streamed) == len(gathered) == len(rows)
    for part, one, other in zip(rows, streamed, gathered, strict=True):
        assert torch.equal(one[0], images[part])
        assert torch.equal(other[0], images[part])
        assert torch.equal(one[1], other[1])


def test_a_stream_can_be_left_in_the_middle():
    data = TrainingSet(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), torch.arange(9))
    batches = stream(data, torch.arange(9).split(2), CPU)
    assert next(batches)[1].tolist() == [0, 1]
    batches.close()


def test_images_are_not_copied_where_they_already_are():
    data = TrainingSet(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=int), 2)
    placed = data.placed(CPU)
    assert placed.images.data_ptr() == data.images.data_ptr()
    assert placed.views == 2


def test_room_is_on_the_device_only_where_the_images_fit(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert fits(60, torch.device("cuda"))
    assert not fits(61, torch.device("cuda"))
    assert fits(10**15, CPU)
    images, labels = room(7, (1, 3, 3), torch.device("cuda"))
    assert images.device == labels.device == CPU
    assert (images.shape, images.dtype) == ((7, 1, 3, 3), torch.uint8)
    assert (labels.shape, labels.dtype) == ((7,), torch.int64)
    large = TrainingSet(torch.zeros(7, 1, 3, 3, dtype=torch.uint8), labels)
    assert large.placed(torch.device("cuda")).images.device == CPU
