"""From a config to a finished run folder."""

from tfkd.training.optimizers import SGD
from tfkd.training.run import run

__all__ = ["SGD", "run"]
