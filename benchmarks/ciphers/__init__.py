"""How fast images are encrypted, beside copying, key generation and the usual Python loop."""
