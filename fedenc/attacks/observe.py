"""Looking: what a ciphertext shows without any key."""

from dataclasses import dataclass
from typing import ClassVar

from fedenc.attacks.base import Attack, Findings, Means, Method, Observation
from fedenc.attacks.common import zero_key_pictures


@dataclass(frozen=True)
class Observe(Attack):
    """Shows each upload as it is seen without a key: what no key changes, as a picture.

    One rule for each method, the one that shows most of photographs: pixel-based encryption and the
    ciphers that turn blocks are folded, ``min(v, 255 − v)``, and shown in gray where the order of
    colours is lost; an LE image is shown as the first principal component of its blocks, which is
    a thumbnail of its brightness; other ciphers as their canonical form, or as they are.
    """

    name: ClassVar[str] = "observe"
    source: ClassVar[str] = "derived"
    quick: ClassVar[bool] = True

    def unsuitable(self, method: Method) -> str | None:
        return None

    def run(self, observation: Observation, means: Means) -> Findings:
        uploads = observation.uploads
        return Findings(images=zero_key_pictures(observation.method, uploads.images))
