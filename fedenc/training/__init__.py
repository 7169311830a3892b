"""Central training on protected images: configuration, loop, checkpoints, inference.

Import what is needed from its module: ``config``, ``training_set``, ``loop``,
``stepper``, ``predict``, ``checkpoint``, ``rng``.
"""
