"""A phase of training: what is trained, for how long, by which optimizer, on which losses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
            the student and every objective. Layers that hold none of them are frozen: their batch
            normalisation uses the moving statistics and leaves them as they are.
        objectives: Names of the objectives that take part; ``None`` is all of them.
        student_loss_weight: Weight of the label loss in this stage; ``None`` is the distiller's.
    """

    name: str
    epochs: int
    optimizer: Callable[[int], keras.optimizers.Optimizer] | None = None
    trainable: Callable[[keras.Model], Sequence[keras.Variable]] | None = None
    objectives: tuple[str, ...] | None = None
    student_loss_weight: float | None = None


@contextlib.contextmanager
def frozen_layers(
    layers: Iterable[keras.Layer], trained: Iterable[keras.Variable]
) -> Iterator[None]:
    """Freezes, for a while, the layers none of whose own variables are trained.

    Keras reads ``trainable`` when a step is traced, so that is when this must hold; the layers'
    own flags, which are saved with a model, stay what they were.

    Args:
        layers: Layers, without their sub-layers.
        trained: The variables that are trained.
    """
    kept = {id(variable) for variable in trained}
    frozen = []
    for layer in layers:
        own = [] if list(layer._flatten_layers(include_self=False)) else layer.trainable_variables
        if own and not any(id(variable) in kept for variable in own):
            layer.trainable = False
            frozen.append(layer)
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = True
