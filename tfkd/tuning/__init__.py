"""Searches over the fields of a config: keras-tuner chooses, every trial is a run folder."""

from tfkd.tuning.searching import METHODS, search
from tfkd.tuning.space import extended
from tfkd.tuning.table import report

__all__ = ["METHODS", "extended", "report", "search"]
