"""The stored images of AuxVar: the batch of all replicas, and the queue of earlier ones."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfkd.core import Context
from tfkd.distillers.shared.contrast import counted
from tfkd.distillers.shared.queue import EMPTY, Queue

VECTORS, CLASSES = "vectors", "classes"
"""What the queue holds of an image: its embedding by the teacher, and its ``p(y | z)``."""


@dataclasses.dataclass(frozen=True)
class Taught:
    """What the teacher says of this replica's images.

    Attributes:
        vectors: Their embeddings of length 1, not centered, ``(batch, width)``.
        classes: Their ``p(y | z)``, ``(batch, classes)``.
        target: What ``p(y | x)`` should be, ``(batch, classes)``.
        numbers: Which training images they are, int32 ``(batch,)``.
    """

    vectors: tf.Tensor
    classes: tf.Tensor
    target: tf.Tensor
    numbers: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Stored:
    """Stored images: the batch of all replicas and what the queue holds, or the queue alone.

    Attributes:
        vectors: Embeddings of length 1, centered where the method is told so, ``(stored, width)``.
        classes: Rows of probabilities, ``(stored, classes)``.
        allowed: Which of them an image may be like, booleans ``(batch or 1, stored)``.
        own: Where this replica's images are among them, int32 ``(batch,)``; ``None`` for the queue
            alone.
    """

    vectors: tf.Tensor
    classes: tf.Tensor
    allowed: tf.Tensor
    own: tf.Tensor | None = None


def stored(
    context: Context, taught: Taught, queue: Queue, own_instance: bool, center: bool
) -> Stored:
    """Returns the batch of all replicas and what the queue holds.

    Args:
        context: The step.
        taught: What the teacher says of this replica's images.
        queue: The queue.
        own_instance: Whether an image may be like itself.
        center: Whether the mean of all embeddings is taken from each.
    """
    queue_rows, batch = queue.rows, counted_numbers(context, taught.numbers)
    vectors, classes = (
        tf.concat([context.gather(each), tf.convert_to_tensor(queue_rows[kind])], axis=0)
        for kind, each in ((VECTORS, taught.vectors), (CLASSES, taught.classes))
    )
    numbers = tf.concat([batch, tf.convert_to_tensor(queue.numbers)], axis=0)
    filled = numbers != EMPTY
    own = context.own_rows(tf.range(tf.shape(batch)[0]))
    # Of several entries of the image itself only that of this step may take part.
    allowed = numbers[None, :] != taught.numbers[:, None]
    if own_instance:
        allowed |= own[:, None] == tf.range(tf.shape(numbers)[0])[None, :]
    allowed = tf.logical_and(allowed, filled[None, :])
    return Stored(_centered(vectors, filled) if center else vectors, classes, allowed, own)


def queued(queue: Queue, center: bool) -> Stored:
    """Returns what the queue holds; arguments as for :func:`stored`."""
    vectors, classes = (tf.convert_to_tensor(queue.rows[kind]) for kind in (VECTORS, CLASSES))
    filled = tf.convert_to_tensor(queue.numbers) != EMPTY
    return Stored(_centered(vectors, filled) if center else vectors, classes, filled[None, :])


def counted_numbers(context: Context, numbers: tf.Tensor) -> tf.Tensor:
    """Returns the numbers of the batch of all replicas, of images that count."""
    return tf.where(counted(context), context.gather(numbers), EMPTY)


def unit(vectors: tf.Tensor) -> tf.Tensor:
    """Returns vectors of length 1, in float32."""
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=1)


def _centered(vectors: tf.Tensor, filled: tf.Tensor) -> tf.Tensor:
    counts = tf.cast(filled, vectors.dtype)[:, None]
    mean = tf.math.divide_no_nan(tf.reduce_sum(counts * vectors, axis=0), tf.reduce_sum(counts))
    return unit(vectors - mean)
