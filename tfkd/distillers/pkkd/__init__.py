"""PKKD: an adder network, and the convolutional one that trains beside it and teaches it."""

from tfkd.distillers.pkkd.distiller import PKKDDistiller
from tfkd.distillers.pkkd.objective import PKKD, blend_loss

__all__ = ["PKKD", "PKKDDistiller", "blend_loss"]
