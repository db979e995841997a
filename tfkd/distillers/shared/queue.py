"""Queues: the last rows of several kinds, written together, each with a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

EMPTY = -1
"""Number of a place that holds nothing."""


class Queue(keras.layers.Layer):
    """Rows of several kinds, such as features and logits; each batch takes the place of the oldest.

    It holds ``4 * size * (sum of widths + 1)`` bytes on each replica.

    Attributes:
        size: Number of places.
        rows: For each kind the rows, float32 ``(size, width)``.
        numbers: What each place holds a row of, such as a class or an image, int32 ``(size,)``;
            :data:`EMPTY` where it holds nothing.
        next: The place that is written next.

    Args:
        size: Number of places.
        widths: Width of the rows of each kind.
        name: Name of the layer.
        start: How the rows begin, a Keras initializer.
        number: The number that all places begin with.
    """

    def __init__(
        self,
        size: int,
        widths: Mapping[str, int],
        *,
        name: str,
        start: str | Callable = "zeros",
        number: int = EMPTY,
    ) -> None:
        super().__init__(name=name, dtype="float32")
        self.size = size
        # Every replica writes the same gathered rows, so that the first one's stand for all.
        kept = dict(trainable=False, autocast=False, aggregation="only_first_replica")
        self.rows = {
            kind: self.add_weight(shape=(size, width), initializer=start, name=kind, **kept)
            for kind, width in widths.items()
        }
        self.numbers = self.add_weight(
            shape=(size,),
            dtype="int32",
            initializer=keras.initializers.Constant(number),
            name="numbers",
            **kept,
        )
        self.next = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", name="next", **kept
        )
        self.built = True

    def put(self, rows: Mapping[str, tf.Tensor], numbers: tf.Tensor) -> None:
        """Writes the rows of a batch of all replicas; of more than there are places, the last.

        Args:
            rows: For each kind ``(all rows, width)``.
            numbers: Their numbers, int32 ``(all rows,)``. A row of :data:`EMPTY` takes a place, but
                counts for nothing.
        """
        count = tf.shape(numbers)[0]
        places = ((self.next + tf.range(count)) % self.size)[-self.size :]
        for kind, values in rows.items():
            # Only these rows are touched, instead of copying all of the queue at each step.
            written = tf.IndexedSlices(values[-self.size :], places)
            self.rows[kind].value.scatter_update(written)
        # Few and small: written as a whole, as every device can do.
        last = numbers[-self.size :]
        self.numbers.assign(tf.tensor_scatter_nd_update(self.numbers, places[:, None], last))
        self.next.assign((self.next + count) % self.size)
