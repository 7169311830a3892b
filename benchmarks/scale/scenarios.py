"""What is measured: participants with synthetic 32×32 images, pixel cipher, a key an image."""

from typing import Any

from fedenc.scenario import Scenario, parse

IMAGES = 50  # a participant, where uploads are compared with raw Ray


def uploads(participants: int, per_node: int) -> Scenario:
    """``participants`` participants of 50 images, ``per_node`` of them on each Flower node."""
    return _scenario(participants, per_node, IMAGES)


def whole(participants: int, per_node: int) -> Scenario:
    """``participants`` participants of one image, which ask about one image plain and encrypted:
    as little work as there can be beside that of taking part. The model is the smallest."""
    return _scenario(participants, per_node, 1, model={"name": "tiny"})


def _scenario(participants: int, per_node: int, images: int, **more: Any) -> Scenario:
    return parse(
        {
            "data": {"name": "synthetic", "count": participants * images},
            "clients": {"count": participants, "per_node": per_node, "images": images},
            "encryption": {
                "cipher": "pixel",
                "color_shuffle": True,
                "keys": "image",
                "seed": "scale benchmark",
            },
            "training": {"epochs": 1},
            "inference": {"images": 1},
            "server": {"min_clients": participants, "deadline": 600.0, "threads": 1},
        }
        | more
    )
