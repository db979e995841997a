"""DiffKD: the student's feature is denoised before it is compared with the teacher's."""

from tfkd.distillers.diffkd.objective import DiffKD

__all__ = ["DiffKD"]
