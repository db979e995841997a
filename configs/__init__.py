"""Experiments: one readable file each, with ``get_config(argument)``."""
