"""Published distillation methods, one file each; the file, its name and the class agree."""

from tfkd.core.registry import create, names
from tfkd.distillers.kd import KD, kd_loss
from tfkd.distillers.plain import Plain

__all__ = ["KD", "Plain", "create", "kd_loss", "names"]
