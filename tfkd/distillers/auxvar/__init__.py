"""AuxVar: the student's classes are told by which stored training images it resembles."""

from tfkd.distillers.auxvar.objective import AuxVar

__all__ = ["AuxVar"]
