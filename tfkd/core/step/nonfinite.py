"""The stop at the first bad step, in the graph, so that a loop of steps ends as well.

Bad are losses and gradients that are not finite, and images that are not where a batch says.
"""

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
    """Remembers the first step whose losses or gradients are not finite, or whose batch is wrong.

    From that step on no update is made, however many steps one compiled call runs.

    Args:
        names: Names of the watched losses.
        told: What is said of each kind of wrong image, with a place for their ``count``.
    """

    def __init__(self, names: Sequence[str], told: Sequence[str] = ()) -> None:
        self._names, self._told = [*names, GRADIENT], list(told)
        self.step = counter("bad_step", "int64", NONE)
        self.epoch = counter("bad_epoch", "float32", NONE)
        self.term = counter("bad_term", "int32", NONE)
        self.images = counter("bad_images", "float32")

    def good(self) -> tf.Tensor:
        """Returns whether everything has been finite so far."""
        return tf.less(tf.convert_to_tensor(self.step), 0)

    def observe(
        self,
        values: tf.Tensor,
        gradients_finite: tf.Tensor,
        step: tf.Tensor,
        epoch: tf.Tensor,
        wrong: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Looks at one step and remembers it if it is the first bad one.

        Args:
            values: The watched losses, ``(names,)``, equal on every replica.
            gradients_finite: Scalar bool, equal on every replica.
            step: Number of the step.
            epoch: The epoch, counted from 0.
            wrong: Number of wrong images of each kind, equal on every replica; ``None`` for none.

        Returns:
            Scalar bool: whether the step may be applied.
        """
        finite = tf.concat([tf.math.is_finite(values), [gradients_finite]], axis=0)
        ok = tf.reduce_all(finite)
        if wrong is not None:
            ok = tf.logical_and(ok, tf.logical_not(tf.reduce_any(wrong > 0)))
        first = tf.logical_and(tf.logical_not(ok), self.good())
        # A single term says more than the totals that it spoils, so the last bad one is named;
        # the gradient only counts when every loss is finite.
        losses = tf.cast(tf.logical_not(finite[:-1]), tf.int32)
        position = tf.where(
            tf.reduce_any(losses > 0),
            len(self._names) - 2 - tf.argmax(tf.reverse(losses, [0]), output_type=tf.int32),
            len(self._names) - 1,
        )
        if wrong is not None:  # What follows from wrong images says less than they do.
            kind = tf.argmax(tf.cast(wrong > 0, tf.float32), output_type=tf.int32)
            any_wrong = tf.gather(wrong, kind) > 0
            position = tf.where(any_wrong, len(self._names) + kind, position)
            images = tf.convert_to_tensor(self.images)
            self.images.assign(tf.where(first, tf.gather(wrong, kind), images))
        self.step.assign(tf.where(first, step, tf.convert_to_tensor(self.step)))
        self.epoch.assign(tf.where(first, epoch, tf.convert_to_tensor(self.epoch)))
        self.term.assign(tf.where(first, position, tf.convert_to_tensor(self.term)))
        return ok

    def check(self) -> None:
        """Raises the error if a bad step was seen.

        Raises:
            NonFiniteLoss: Naming term, step and epoch.
            TfkdError: For wrong images, as :meth:`check_images`.
        """
        self.check_images()
        step = int(self.step.numpy())
        if step == NONE:
            return
        name = self._names[int(self.term.numpy())]
        what = "the gradient" if name == GRADIENT else f"loss {name!r}"
        raise NonFiniteLoss(
            f"{what} is not finite at step {step} (epoch {int(self.epoch.numpy()) + 1}); training "
            "has stopped, and no gradient was applied from that step on"
        )

    def check_images(self) -> None:
        """Raises the error if a step was seen whose images were wrong.

        Raises:
            TfkdError: Saying how many, and what they lack.
        """
        kind = int(self.term.numpy()) - len(self._names)
        if kind >= 0:
            told = self._told[kind].format(count=int(self.images.numpy()))
            raise TfkdError(f"{told}; training has stopped at step {int(self.step.numpy())}")

    def reset(self) -> None:
        """Forgets what was seen."""
        self.step.assign(NONE)
        self.epoch.assign(NONE)
        self.term.assign(NONE)
