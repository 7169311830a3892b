"""``synthetic``: any number of noise images, cheap to make, for measurements of scale."""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fedenc.data.dataset import Dataset, Split

CLASSES = 10
COUNT = 250_000  # training images by default: 5,000 participants of 50
_STEP = 64  # bytes between the starts of consecutive images


def synthetic(count: int = COUNT, size: int = 32) -> Dataset:
    """``count`` training images of uniform noise and a fifth as many for testing.

    Nothing can be learned from them: labels (10 classes, balanced to within one image) are random.
    Images are overlapping windows, 64 bytes apart, of one buffer of random bytes, so 250,000 take
    about 20 MB in memory and none on disk; indexing them gives ordinary arrays. All are distinct,
    but neighbours share bytes, so do not use them for statistics or for attacks.

    Args:
        count: training images, at least 1.
        size: pixels a side.
    """
    held_out = max(1, count // 5)
    shape = (3, size, size)
    pixels = int(np.prod(shape))
    generator = np.random.Generator(np.random.PCG64(0))
    noise = generator.integers(0, 256, (count + held_out) * _STEP + pixels, dtype=np.uint8)
    strides = (_STEP, size * size, size, 1)
    images = as_strided(noise, (count + held_out, *shape), strides, writeable=False)
    labels = np.concatenate([generator.permutation(n) % CLASSES for n in (count, held_out)])
    labels.setflags(write=False)
    return Dataset(
        name="synthetic",
        train=Split(images[:count], labels[:count]),
        test=Split(images[count:], labels[count:]),
        classes=tuple(map(str, range(CLASSES))),
    )
