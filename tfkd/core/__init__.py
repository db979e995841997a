"""What every distiller is made of."""

from tfkd.core.context import Context
from tfkd.core.distiller import Distiller
from tfkd.core.finite import NonFiniteLoss
from tfkd.core.objective import VIEW_KEYS, Companion, Objective, Requires, Spec, Terms
from tfkd.core.registry import register
from tfkd.core.stage import Stage
from tfkd.core.task import Classification
from tfkd.core.weighing import Outcome

__all__ = [
    "VIEW_KEYS",
    "Classification",
    "Companion",
    "Context",
    "Distiller",
    "NonFiniteLoss",
    "Objective",
    "Outcome",
    "Requires",
    "Spec",
    "Stage",
    "Terms",
    "register",
]
