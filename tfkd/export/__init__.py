"""Export: the student alone as a SavedModel that plain TensorFlow serves."""

from tfkd.export.description import describe
from tfkd.export.saved_model import save, save_run
from tfkd.export.speed import early_exit_speed, images_per_second, speed_of_adder_forms

__all__ = [
    "describe",
    "early_exit_speed",
    "images_per_second",
    "save",
    "save_run",
    "speed_of_adder_forms",
]
