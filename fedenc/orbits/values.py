"""Canonical forms of single values and pixels.

Negative-positive transformation (NP) maps a value p to p or 255 − p; colour shuffling (CS) permutes
a pixel's channels (Sirichotedumrong, Kinoshita & Kiya, IEEE Access 2019).
"""

import torch
from torch import Tensor


def fold(images: Tensor) -> Tensor:
    """``min(p, 255 − p)``: uint8 of any shape to uint8 in 0..127, invariant under NP."""
    return torch.minimum(images, 255 - images)


def fold_sorted(images: Tensor) -> Tensor:
    """Fold, then sort each pixel's channels in ascending order: invariant under NP and CS.

    uint8 N×C×H×W to the same shape.
    """
    folded = fold(images)
    if folded.shape[1] != 3:
        return folded.sort(dim=1).values
    # Three comparisons of pairs: much faster than a general sort along a dimension of three.
    a, b, c = folded.unbind(1)
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    b, c = torch.minimum(b, c), torch.maximum(b, c)
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    ordered = torch.empty_like(images)  # in the memory format of the images
    for channel, values in enumerate((a, b, c)):
        ordered[:, channel] = values
    return ordered
