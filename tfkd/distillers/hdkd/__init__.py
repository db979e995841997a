"""HDKD: dense distillation between the exits of a network, whose weights are learned as well."""

from tfkd.distillers.hdkd.distiller import HDKDDistiller
from tfkd.distillers.hdkd.objective import HDKD

__all__ = ["HDKD", "HDKDDistiller"]
