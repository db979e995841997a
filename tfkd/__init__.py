"""tfkd: knowledge distillation for TensorFlow and Keras."""

from tfkd import data, distillers, models
from tfkd.core import (
    Context,
    Distiller,
    NonFiniteLoss,
    Objective,
    Requires,
    Stage,
    Terms,
    register,
    tasks,
)
from tfkd.errors import TfkdError, TfkdWarning

__version__ = "0.1.0"

__all__ = [
    "Context",
    "Distiller",
    "NonFiniteLoss",
    "Objective",
    "Requires",
    "Stage",
    "Terms",
    "TfkdError",
    "TfkdWarning",
    "data",
    "distillers",
    "models",
    "register",
    "tasks",
]
