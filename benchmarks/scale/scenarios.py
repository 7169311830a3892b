"""What is measured: participants of 50 synthetic 32×32 images, pixel cipher, a key an image."""

from fedenc.scenario import Scenario, parse

IMAGES = 50  # a participant


def scenario(participants: int, per_node: int) -> Scenario:
    """``participants`` participants of 50 images, ``per_node`` of them on each Flower node."""
    return parse(
        {
            "data": {"name": "synthetic", "count": participants * IMAGES},
            "clients": {"count": participants, "per_node": per_node, "images": IMAGES},
            "encryption": {
                "cipher": "pixel",
                "color_shuffle": True,
                "keys": "image",
                "seed": "upload benchmark",
            },
            "training": {"epochs": 1},
            "inference": {"images": 2},
            "server": {"min_clients": participants, "deadline": 600.0},
        }
    )
