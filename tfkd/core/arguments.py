"""The arguments of the distiller: checked, and brought into one form."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfkd.core.keras_losses import KerasObjective
from tfkd.core.objective import Objective
from tfkd.errors import TfkdError
from tfkd.settings import NonNegative, checked

RESERVED = ("loss", "total_loss", "student_loss", "distillation_loss", "agreement")
"""Names under which the distiller logs numbers of its own."""


def as_list(value) -> list:
    """Returns a list or tuple as a list, ``None`` as an empty one, others as their only entry."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def as_objectives(losses) -> list[Objective]:
    """Returns the distillation losses as objectives, each with a name of its own.

    Args:
        losses: One or a list of objectives and Keras distillation losses.

    Raises:
        TfkdError: For anything else, or two of one name.
    """
    listed = as_list(losses)
    objectives = []
    for each in listed:
        if isinstance(each, keras.distillation.DistillationLoss):
            each = KerasObjective(each)
        if not isinstance(each, Objective):
            raise TfkdError(
                f"distillation loss {each!r}: found {type(each).__name__}, wanted a tfkd Objective "
                "or a keras.distillation.DistillationLoss"
            )
        objectives.append(each)
    names = [objective.name for objective in objectives]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TfkdError(f"objectives named alike: {', '.join(repeated)}; give each its own name=")
    for name in names:
        check_name(name, RESERVED)
    return objectives


def check_name(name: str, reserved: Sequence[str]) -> None:
    """Checks that an objective has none of the names under which the distiller logs numbers.

    Raises:
        TfkdError: When it has.
    """
    if name in reserved:
        raise TfkdError(
            f"objective named {name!r}: found a name that the distiller logs itself "
            f"({', '.join(reserved)}); give it another name="
        )


def as_weights(weights, objectives: Sequence[Objective]) -> list[float]:
    """Returns a weight for each objective; ``None`` is 1 each.

    Raises:
        TfkdError: When their number differs or one is not a number >= 0.
    """
    weights = [1.0] * len(objectives) if weights is None else as_list(weights)
    if len(weights) != len(objectives):
        raise TfkdError(
            f"distillation_loss_weights: found {len(weights)}, wanted {len(objectives)}, one for "
            "each distillation loss"
        )
    return [checked("distillation_loss_weights", NonNegative, weight) for weight in weights]
