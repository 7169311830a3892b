"""Central training on protected images: configuration, loop, checkpoints, inference.

Import what is needed from its module: ``config``, ``loop``, ``predict``, ``checkpoint``, ``rng``.
"""
