"""Where training stands: numbers that compiled steps read and write, kept out of every model."""

from __future__ import annotations

import keras
import tensorflow as tf

NO_LIMIT = 2**62
"""Value of the step limit that never stops training."""


def counter(name: str, dtype: str, start: int = 0) -> keras.Variable:
    """Returns a scalar variable that is equal on every replica.

    It belongs to no layer, so that restoring the weights of a model (as early stopping does) cannot
    turn it back.

    Args:
        name: Its name.
        dtype: Its type.
        start: Its first value.
    """
    return keras.Variable(
        start,
        shape=(),
        dtype=dtype,
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
        name=name,
    )


class Clock:
    """Epoch, number of epochs, step and step limit of a run."""

    def __init__(self) -> None:
        self.epoch = counter("epoch", "float32")
        self.epochs = counter("epochs", "float32")
        self.step = counter("step", "int64")
        self.step_limit = counter("step_limit", "int64", NO_LIMIT)

    def may_step(self) -> tf.Tensor:
        """Returns whether the limit allows another step; a scalar bool for compiled code."""
        step = tf.convert_to_tensor(self.step)
        return tf.less(step, tf.convert_to_tensor(self.step_limit))

    def tick(self) -> None:
        """Counts one step."""
        self.step.assign(self.step + 1)
