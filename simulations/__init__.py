"""Experiments: who takes part, on what engine, and what is written down."""
