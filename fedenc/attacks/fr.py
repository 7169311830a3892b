"""The feature reconstruction attack (FR) of Chang & Case on pixel-based encryption.

arXiv 2004.13263, and the code published with it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.attacks.base import Attack, Findings, Knowledge, Means, Method, Observation
from fedenc.attacks.common import fitted
from fedenc.attacks.recovery import COLOR_ORDERS
from fedenc.ciphers.pixel import Pixel
from fedenc.errors import AttackError
from fedenc.models.inputs import fold

REFERENCES = ("published", "neighbours")


@dataclass(frozen=True)
class BasicFR(Attack):
    """Takes every byte for the darker one of itself and its complement: ``min(v, 255 − v)``.

    Ito, Kinoshita & Kiya (2021) use it in this form against every method.
    """

    name: ClassVar[str] = "fr-basic"
    source: ClassVar[str] = "Chang & Case, arXiv 2004.13263"

    def unsuitable(self, method: Method) -> str | None:
        return None

    def run(self, observation: Observation, means: Means) -> Findings:
        shape = observation.method.shape
        return Findings(images=fold(fitted(observation.uploads.images, shape)))


@dataclass(frozen=True)
class AdvancedFR(Attack):
    """Decodes pixel by pixel what is nearest to its decoded neighbour, given the first true colour.

    The published code gets the true colour of the first pixel of each image from its user, so this
    is no attack by ciphertexts alone. Each pixel has 48 forms (8 where colours are not shuffled);
    the form with the least L1 distance from a reference is taken, among equally near ones the last
    colour order. Wrong decisions run on down the columns.

    Args:
        reference: ``published``: the pixel to the left in the first row, else the pixel above.
            ``neighbours``: the mean of the pixels to the left and above, where there are both.
    """

    reference: str = "published"
    name: ClassVar[str] = "fr-advanced"
    source: ClassVar[str] = "Chang & Case, arXiv 2004.13263"
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.COLOURS})

    def __post_init__(self) -> None:
        if self.reference not in REFERENCES:
            known = ", ".join(REFERENCES)
            raise AttackError(f"reference is {self.reference!r}, expected one of {known}")

    def unsuitable(self, method: Method) -> str | None:
        return None if isinstance(method.cipher, Pixel) else "is for pixel-based encryption"

    def run(self, observation: Observation, means: Means) -> Findings:
        cipher = observation.method.cipher
        assert isinstance(cipher, Pixel)
        channels = observation.method.shape[0]
        orders = COLOR_ORDERS if cipher.color_shuffle else torch.arange(channels)[None]
        both = self.reference == "neighbours"
        images = decode(observation.uploads.images, observation.colours, orders, both=both)
        return Findings(images=images)


def decode(encrypted: Tensor, colours: Tensor, orders: Tensor, *, both: bool) -> Tensor:
    """Decode greedily, row by row.

    Args:
        encrypted: uint8 (N, C, H, W).
        colours: uint8 (N, C), of the first pixel.
        orders: int64 (K, C): the colour orders that are possible.
        both: the reference is the mean of the pixels to the left and above.

    Returns:
        uint8 (N, C, H, W).
    """
    height, width = encrypted.shape[2:]
    source = encrypted.permute(2, 3, 0, 1).to(torch.int16)  # (H, W, N, C)
    decoded = torch.empty_like(source)
    decoded[0, 0] = colours.to(torch.int16)
    places = torch.arange(orders.shape[1])
    for row in range(height):
        for column in range(width):
            if row == column == 0:
                continue
            if both and row and column:
                twice = decoded[row - 1, column] + decoded[row, column - 1]
            else:
                twice = 2 * (decoded[row - 1, column] if row else decoded[row, column - 1])
            value = source[row, column]
            forms = torch.stack((value, 255 - value))  # (2, N, C)
            # twice the distance of every encrypted channel from every place: (2, N, from, to)
            distance = (2 * forms[..., None] - twice[:, None]).abs()
            least, form = distance.min(0)
            costs = least[:, orders, places].sum(2)  # (N, K)
            last = len(orders) - 1 - costs.flip(1).argmin(1)
            chosen = orders[last]  # (N, C), the channel that goes to each place
            flipped = form[torch.arange(len(form))[:, None], chosen, places]
            taken = value.gather(1, chosen)
            decoded[row, column] = torch.where(flipped.bool(), 255 - taken, taken)
    return decoded.permute(2, 3, 0, 1).to(torch.uint8).contiguous()
