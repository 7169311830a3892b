"""The closed form beside a trained locally connected network: least squares for every pixel."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.attacks.base import Attack, Findings, Knowledge, Means, Method, Observation
from fedenc.attacks.common import as_bytes, fitted
from fedenc.attacks.known_pairs import check_pairs
from fedenc.errors import AttackError

_TOLERANCE = 1e-9  # of singular values, relative to the largest: what counts as zero


@dataclass(frozen=True)
class Affine(Attack):
    """Fits an affine map from encrypted to plain colours at every pixel, by least squares.

    Sirichotedumrong, Kinoshita & Kiya train a locally connected network on pairs of images and
    their ciphertexts (Table 2). Under a shared key pixel-based encryption is affine at every pixel,
    so that the best such map has a closed form. Under independent keys one map is fitted to the
    pairs of all images, as their network is; it can hardly do better than the mean image.

    Args:
        pairs: how many known pairs to use of every group of images that share a key (of all
            images, if none do); 0: all.
    """

    pairs: int = 8
    name: ClassVar[str] = "affine"
    source: ClassVar[str] = (
        "derived; closed form of the attack in Sirichotedumrong, Kinoshita & Kiya, "
        "IEEE Access 2019, Table 2"
    )
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.PAIRS})

    def __post_init__(self) -> None:
        check_pairs(self.pairs)

    def unsuitable(self, method: Method) -> str | None:
        if method.cipher is None or method.cipher.output_shape(*method.shape) == method.shape:
            return None
        return "needs ciphertexts of the size of the images"

    def run(self, observation: Observation, means: Means) -> Findings:
        method, uploads, known = observation.method, observation.uploads, observation.pairs
        images = fitted(uploads.images, method.shape)
        shared = method.shares_keys or method.policy is None
        groups = list(observation.groups()) if shared else [torch.arange(len(uploads))]
        used = 0
        for rows in groups:
            chosen = torch.isin(known.rows, rows).nonzero().squeeze(1)[: self.pairs or None]
            if not len(chosen):
                raise AttackError("there are no known pairs under a key; expected one or more")
            used += len(chosen)
            maps = fit(uploads.images[known.rows[chosen]], known.plain[chosen])
            images[rows] = predict(uploads.images[rows], maps)
        return Findings(images=images, facts={"pairs": used})


def fit(encrypted: Tensor, plain: Tensor) -> Tensor:
    """Least squares of smallest norm at every pixel: uint8 (P, C, H, W) twice to float64
    (H·W, C + 1, C), of which the last row is the offset."""
    inverse: Tensor = torch.linalg.pinv(_rows(encrypted), rtol=_TOLERANCE)
    return inverse @ _columns(plain)


def predict(encrypted: Tensor, maps: Tensor) -> Tensor:
    """Apply what ``fit`` found: uint8 (N, C, H, W) to the same."""
    values = _rows(encrypted) @ maps  # (H·W, N, C)
    return as_bytes(values.permute(1, 2, 0).reshape(encrypted.shape))


def _columns(images: Tensor) -> Tensor:
    return images.flatten(2).permute(2, 0, 1).double()  # (H·W, N, C)


def _rows(images: Tensor) -> Tensor:
    """Centred, so that the solution of smallest norm is a map near a constant gray."""
    columns = _columns(images) - 127.5
    return torch.cat((columns, torch.full_like(columns[..., :1], 127.5)), dim=2)
