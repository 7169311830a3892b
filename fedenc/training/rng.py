"""The one place where torch's global random state is touched.

What cannot take a generator of its own (initialisation, dropout) runs inside a fork of the global
state, seeded by :mod:`fedenc.seeding` and put back after.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedenc.seeding import Purpose, derive


def _get(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set(device: torch.device, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


class GlobalStream:
    """A private continuation of torch's global generators.

    ``with stream.active():`` swaps the stream in and, on leaving, puts the caller's state back, so
    that a training loop which pauses between steps neither disturbs its caller nor is disturbed.
    """

    def __init__(self, seed: int, *purpose: Purpose, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        kinds = ["cpu", "cuda"] if self.device.type == "cuda" else ["cpu"]
        value = derive(seed, *purpose)
        self._states = {
            kind: torch.Generator(self.device if kind == "cuda" else "cpu")
            .manual_seed(value)
            .get_state()
            for kind in kinds
        }

    @contextmanager
    def active(self) -> Iterator[None]:
        outer = _get(self.device)
        _set(self.device, self._states)
        try:
            yield
        finally:
            self._states = _get(self.device)
            _set(self.device, outer)

    def state(self) -> dict[str, Tensor]:
        """The position in the stream, as uint8 tensors for a checkpoint."""
        return dict(self._states)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue where ``state()`` was taken. A checkpoint of another kind of device has no
        position for this one's generator, which then keeps the one derived from the seed."""
        self._states = {kind: state.get(kind, own) for kind, own in self._states.items()}


@contextmanager
def seeded(seed: int, *purpose: Purpose, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run a block (initialisation, say) under global state derived from ``(seed, purpose)``."""
    with GlobalStream(seed, *purpose, device=device).active():
        yield
