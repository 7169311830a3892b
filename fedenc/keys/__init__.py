"""Keys of participants: key rings, the keystreams derived from them, and keyfiles."""

from fedenc.keys.keystream import Keystream
from fedenc.keys.ring import MASTER_BITS, NONCE_BYTES, POLICIES, KeyRing, Policy, new_nonce

__all__ = ["MASTER_BITS", "NONCE_BYTES", "POLICIES", "KeyRing", "Keystream", "Policy", "new_nonce"]
