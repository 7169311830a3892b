"""Ciphers by name; a package adds its own by an entry point in the group ``fedenc.ciphers``."""

from typing import TYPE_CHECKING

from fedenc.errors import CipherError
from fedenc.plugins import Registry

if TYPE_CHECKING:
    from fedenc.ciphers.base import Cipher


def _base() -> "type[Cipher]":
    from fedenc.ciphers.base import Cipher

    return Cipher


REGISTRY: "Registry[Cipher]" = Registry(
    "cipher",
    {
        "none": "fedenc.ciphers.none:NoCipher",
        "pixel": "fedenc.ciphers.pixel:Pixel",
        "etc": "fedenc.ciphers.etc:EtC",
        "etc-gray": "fedenc.ciphers.etc_gray:EtCGray",
        "le": "fedenc.ciphers.le:LE",
        "ele": "fedenc.ciphers.ele:ELE",
        "logistic-rc4": "fedenc.ciphers.logistic_rc4:LogisticRC4",
        "scramble": "fedenc.ciphers.scramble:Scramble",
    },
    _base,
    CipherError,
)
names, make, cipher_class = REGISTRY.names, REGISTRY.make, REGISTRY.find
