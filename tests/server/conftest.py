"""What tests of the provider share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def quick_collections() -> Iterator[None]:
    """Have ``gc.collect`` look at nothing but what the test itself has made."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
