"""What every distiller is made of."""

from tfkd.core.distiller import Distiller
from tfkd.core.objective import VIEW_KEYS, Companion, Finish, Objective, Requires, Spec, Terms
from tfkd.core.registry import register
from tfkd.core.stage import Stage
from tfkd.core.step.context import Context
from tfkd.core.step.losses import StepLosses
from tfkd.core.step.nonfinite import NonFiniteLoss
from tfkd.core.tasks import Classification, MultiExitClassification, Task

__all__ = [
    "VIEW_KEYS",
    "Classification",
    "Companion",
    "Context",
    "Distiller",
    "Finish",
    "MultiExitClassification",
    "NonFiniteLoss",
    "Objective",
    "StepLosses",
    "Requires",
    "Spec",
    "Stage",
    "Task",
    "Terms",
    "register",
]
