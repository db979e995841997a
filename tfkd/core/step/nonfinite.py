"""The stop at the first non-finite loss, in the graph, so that a loop of steps ends as well."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd.core.step.clock import counter
from tfkd.errors import TfkdError

NONE = -1
GRADIENT = "gradient"


class NonFiniteLoss(TfkdError):
    """A loss or gradient became NaN or infinite; the message names term, step and epoch."""


class NonFiniteWatch:
    """Remembers the first step whose losses or gradients are not finite.

    From that step on no update is made, however many steps one compiled call runs.

    Args:
        names: Names of the watched losses.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [*names, GRADIENT]
        self.step = counter("bad_step", "int64", NONE)
        self.epoch = counter("bad_epoch", "float32", NONE)
        self.term = counter("bad_term", "int32", NONE)

    def good(self) -> tf.Tensor:
        """Returns whether everything has been finite so far."""
        return tf.less(tf.convert_to_tensor(self.step), 0)

    def observe(
        self, values: tf.Tensor, gradients_finite: tf.Tensor, step: tf.Tensor, epoch: tf.Tensor
    ) -> tf.Tensor:
        """Looks at one step and remembers it if it is the first bad one.

        Args:
            values: The watched losses, ``(names,)``, equal on every replica.
            gradients_finite: Scalar bool, equal on every replica.
            step: Number of the step.
            epoch: The epoch, counted from 0.

        Returns:
            Scalar bool: whether the step may be applied.
        """
        finite = tf.concat([tf.math.is_finite(values), [gradients_finite]], axis=0)
        ok = tf.reduce_all(finite)
        first = tf.logical_and(tf.logical_not(ok), self.good())
        # A single term says more than the totals that it spoils, so the last bad one is named;
        # the gradient only counts when every loss is finite.
        losses = tf.cast(tf.logical_not(finite[:-1]), tf.int32)
        position = tf.where(
            tf.reduce_any(losses > 0),
            len(self._names) - 2 - tf.argmax(tf.reverse(losses, [0]), output_type=tf.int32),
            len(self._names) - 1,
        )
        self.step.assign(tf.where(first, step, tf.convert_to_tensor(self.step)))
        self.epoch.assign(tf.where(first, epoch, tf.convert_to_tensor(self.epoch)))
        self.term.assign(tf.where(first, position, tf.convert_to_tensor(self.term)))
        return ok

    def check(self) -> None:
        """Raises the error if a bad step was seen.

        Raises:
            NonFiniteLoss: Naming term, step and epoch.
        """
        step = int(self.step.numpy())
        if step == NONE:
            return
        name = self._names[int(self.term.numpy())]
        what = "the gradient" if name == GRADIENT else f"loss {name!r}"
        raise NonFiniteLoss(
            f"{what} is not finite at step {step} (epoch {int(self.epoch.numpy()) + 1}); training "
            "has stopped, and no gradient was applied from that step on"
        )

    def reset(self) -> None:
        """Forgets what was seen."""
        self.step.assign(NONE)
        self.epoch.assign(NONE)
        self.term.assign(NONE)
