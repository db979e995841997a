"""A comparison: runs of several roles over several seeds, side by side in one table."""

from tfkd.training.compare.plan import ALONE, DISTILLED, TEACHER, holds_for, of_methods, roles
from tfkd.training.compare.running import compare
from tfkd.training.compare.summary import failures, table

__all__ = [
    "ALONE",
    "DISTILLED",
    "TEACHER",
    "compare",
    "failures",
    "holds_for",
    "of_methods",
    "roles",
    "table",
]
