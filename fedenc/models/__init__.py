"""Classifiers for small images, all made by ``build``. torch is imported only when it is called."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from math import lcm
from typing import TYPE_CHECKING

from fedenc import orbits
from fedenc.errors import TrainingError
from fedenc.plugins import Parameter

if TYPE_CHECKING:
    from fedenc.models.network import Network

# name -> function under fedenc.models that makes it, and the smallest side of an image, in pixels,
# of which its poolings leave at least one
_FAMILIES = {
    "resnet20": ("resnet.resnet20", 4),
    "resnet18": ("resnet.resnet18", 4),
    "vgg16_bn": ("vgg.vgg16_bn", 32),
    "densenet40_12": ("densenet.densenet40_12", 4),
    "fast": ("fast.fast", 9),
    "tiny": ("fast.tiny", 9),
    "set": ("sets.block_set", 1),
}
_OF_BLOCKS = ("set",)  # they are told the size of the cipher's blocks


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
    cipher: str | None = None,
    cipher_params: Mapping[str, Parameter] | None = None,
    seed: int = 0,
) -> "Network":
    """A freshly initialised network: uint8 N×``channels``×H×W images to N×``classes`` logits.

    ``size`` is (H, W). ``input`` is "raw", "invariant" (the canonical form of ``cipher``) or
    "invariant-np" (unchanged by NP); see ``fedenc.models.inputs``. ``adapter`` is a learned front
    end: "conv1x1", "le-adaptnet" or "ele-adaptnet"; see ``fedenc.models.adapters``. ``cipher`` and
    its public parameters in full say how the images are protected; None counts as pixel-based
    encryption with colour shuffling. Only "invariant" and the network "set", which takes the size
    of its blocks from there, depend on them. The weights are a function of the arguments alone, and
    the caller's random state is left as it was.

    Raises TrainingError for a name, an input, an adapter or a size that does not exist or fit, and
    for "invariant" under a cipher without a canonical form.
    """
    if name not in _FAMILIES:
        raise TrainingError(f"model is {name!r}; expected one of {', '.join(_FAMILIES)}")
    from torch import nn

    from fedenc.models.adapters import ADAPTERS
    from fedenc.models.network import Architecture, Network
    from fedenc.training import rng

    if adapter is not None and adapter not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise TrainingError(f"adapter is {adapter!r}; expected none or one of {known}")
    family, least = _FAMILIES[name]
    front = None if adapter is None else ADAPTERS[adapter]
    params = dict(cipher_params or {})
    own = {"block": orbits.block_size(params)} if name in _OF_BLOCKS else {}
    block = lcm(1 if front is None else front.block, own.get("block", 1))
    problems = [
        f"{what} is {value}; expected {expected}"
        for what, value, good, expected in (
            ("channels", channels, channels >= 1, "at least 1"),
            ("classes", classes, classes >= 2, "at least 2"),
            *(
                (side, pixels, pixels >= least and pixels % block == 0, _side(least, block))
                for side, pixels in zip(("height", "width"), size, strict=True)
            ),
        )
        if not good
    ]
    if problems:
        raise TrainingError(f"cannot build {name}: {'; '.join(problems)}")
    module, _, function = family.partition(".")
    maker = getattr(import_module(f"fedenc.models.{module}"), function)
    architecture = Architecture(name, channels, classes, (size[0], size[1]), input, adapter)
    if own or input == "invariant":
        architecture = replace(architecture, cipher=cipher, cipher_params=params)
    with rng.seeded(seed, "initialisation", name):
        if front is None:
            return Network(architecture, nn.Identity(), maker(channels, classes, **own))
        body = maker(front.outputs or channels, classes, **own)
        return Network(architecture, front.make(channels, size), body)


def _side(least: int, block: int) -> str:
    return f"at least {least}" + (f" and a multiple of {block}" if block > 1 else "")
