"""PBKD: the blocks of a teacher are replaced one after the other by smaller ones."""

from tfkd.distillers.pbkd.objective import PBKD, local_loss

__all__ = ["PBKD", "local_loss"]
