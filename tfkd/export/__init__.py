"""Export: the student alone as a SavedModel that plain TensorFlow serves."""

from tfkd.export.description import describe
from tfkd.export.saved_model import save

__all__ = ["describe", "save"]
