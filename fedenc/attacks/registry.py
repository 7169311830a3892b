"""Attacks by name; a package adds its own by an entry point in the group ``fedenc.attacks``."""

from typing import TYPE_CHECKING

from fedenc.errors import AttackError
from fedenc.plugins import Registry

if TYPE_CHECKING:
    from fedenc.attacks.base import Attack


def _base() -> "type[Attack]":
    from fedenc.attacks.base import Attack

    return Attack


REGISTRY: "Registry[Attack]" = Registry(
    "attack",
    {
        "observe": "fedenc.attacks.observe:Observe",
        "fr-basic": "fedenc.attacks.fr:BasicFR",
        "fr-advanced": "fedenc.attacks.fr:AdvancedFR",
        "link": "fedenc.attacks.link:Link",
        "link-network": "fedenc.attacks.link:LinkNetwork",
        "principal-component": "fedenc.attacks.same_key:PrincipalComponent",
        "known-pairs": "fedenc.attacks.known_pairs:KnownPairs",
        "affine": "fedenc.attacks.affine:Affine",
        "chosen-plaintext": "fedenc.attacks.chosen_plaintext:ChosenPlaintext",
        "colluders": "fedenc.attacks.colluders:Colluders",
        "seed-search": "fedenc.attacks.seed_search:SeedSearch",
        "jigsaw": "fedenc.attacks.jigsaw:Jigsaw",
        "locally-connected": "fedenc.attacks.locally_connected:LocallyConnected",
        "itn": "fedenc.attacks.itn:InverseNetwork",
        "itn-network": "fedenc.attacks.itn:InverseOfNetwork",
        "sia-gan": "fedenc.attacks.sia_gan:SiaGan",
        "membership": "fedenc.attacks.membership:Membership",
        "membership-chosen": "fedenc.attacks.membership:ChosenMembership",
        "membership-network": "fedenc.attacks.membership:NetworkMembership",
        "inversion": "fedenc.attacks.inversion:Inversion",
    },
    _base,
    AttackError,
)
names, make, attack_class = REGISTRY.names, REGISTRY.make, REGISTRY.find
