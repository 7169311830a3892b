"""Data sets as read-only uint8 arrays, and their partitions over participants.

Importing this package costs numpy only: decoders (Pillow, pyarrow, torchvision) are imported when
a data set is decoded for the first time, and never again while its cache is valid.
"""

from fedenc.data.dataset import Dataset, Split
from fedenc.data.loading import NAMES, load

__all__ = ["NAMES", "Dataset", "Split", "load"]
