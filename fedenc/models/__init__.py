"""Classifiers for small images. ``build`` is the only way in; torch loads when it is called."""

from importlib import import_module
from typing import TYPE_CHECKING

from fedenc.errors import TrainingError

if TYPE_CHECKING:
    from fedenc.models.network import Network

# name -> module under fedenc.models that defines a function of that name
_FAMILIES = {
    "resnet20": "resnet",
}


def names() -> tuple[str, ...]:
    """The networks that ``build`` knows."""
    return tuple(_FAMILIES)


def build(
    name: str,
    *,
    channels: int,
    classes: int,
    size: tuple[int, int],
    input: str = "raw",
    adapter: str | None = None,
    seed: int = 0,
) -> "Network":
    """A freshly initialised network: uint8 N×``channels``×H×W images to N×``classes`` logits.

    ``size`` is (H, W). ``input`` is "raw", "invariant" (unchanged by NP and CS) or "invariant-np"
    (unchanged by NP); see ``fedenc.models.inputs``. The weights are a function of the arguments
    alone, and the caller's random state is left as it was.

    Raises TrainingError for a name, an input, an adapter or a size that does not exist or fit.
    """
    if name not in _FAMILIES:
        raise TrainingError(f"model is {name!r}; expected one of {', '.join(_FAMILIES)}")
    problems = [
        f"{what} is {value}; expected at least {least}"
        for what, value, least in (
            ("channels", channels, 1),
            ("classes", classes, 2),
            ("height", size[0], 4),
            ("width", size[1], 4),
        )
        if value < least
    ]
    if problems:
        raise TrainingError(f"cannot build {name}: {'; '.join(problems)}")
    if adapter is not None:
        raise TrainingError(f"adapter is {adapter!r}; expected none")
    from torch import nn

    from fedenc.models.network import Architecture, Network
    from fedenc.training import rng

    maker = getattr(import_module(f"fedenc.models.{_FAMILIES[name]}"), name)
    architecture = Architecture(name, channels, classes, (size[0], size[1]), input, adapter)
    with rng.seeded(seed, "initialisation", name):
        return Network(architecture, nn.Identity(), maker(channels, classes))
