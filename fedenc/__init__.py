"""fedenc: visual protection of images, and what a model can still learn from them.

The library holds images, keys, ciphers, models and their mathematics. It knows nothing of
Flower or Ray; the packages ``clients``, ``server`` and ``simulations`` build on it.
"""

__version__ = "0.1.0"
