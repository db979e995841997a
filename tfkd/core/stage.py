"""A phase of training: what is trained, for how long, by which optimizer, on which losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Stage:
    """One phase of a run. Most methods have one; a progressive or two-stage method returns several.

    Attributes:
        name: A word for logs and checkpoints.
        epochs: Length of the stage.
        optimizer: ``optimizer(steps_per_epoch)`` makes a fresh optimizer for the stage; ``None`` is
            the optimizer of the run.
        trainable: ``trainable(distiller)`` lists the variables that the stage trains; ``None`` is
            the student and every objective.
        objectives: Names of the objectives that take part; ``None`` is all of them.
        student_loss_weight: Weight of the label loss in this stage; ``None`` is the distiller's.
    """

    name: str
    epochs: int
    optimizer: Callable[[int], keras.optimizers.Optimizer] | None = None
    trainable: Callable[[keras.Model], Sequence[keras.Variable]] | None = None
    objectives: tuple[str, ...] | None = None
    student_loss_weight: float | None = None
