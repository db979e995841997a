"""Negatives of other classes: which training images an image is told apart from in a step.

Yonglong Tian, Dilip Krishnan and Phillip Isola, "Contrastive Representation Distillation", ICLR
2020: each image of a batch draws ``count`` training images of other classes, uniformly and without
replacement, 16,384 of the 50,000 of CIFAR-100.

- :meth:`Negatives.of_each` is that draw: every image has its own.
- :meth:`Negatives.of_batch` draws once for the whole batch. The training images are shuffled, and
  every image of the batch takes the first ``count`` of them that are not of its class. What an
  image takes is distributed as before, and so are the expectations of its loss and its gradient;
  but images of one batch now share most of their negatives. The scores of a step then shrink from
  ``batch x training images`` to little more than ``batch x count``.

Both are functions of a seed alone, drawn where the step runs, and both give the numbers by which a
dense table of scores is weighed, so that no score is gathered, nor a gradient scattered.

Departure: where other classes have fewer than ``count`` images, the published code draws with
replacement. Here all of them are taken, and together they weigh as ``count``, as that draw does in
expectation.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.errors import TfkdError

PUBLISHED = 16384
"""Negatives of an image in the published runs."""

_PUBLISHED_SET = 50_000


def published_count(train_size: int) -> int:
    """Returns the published number of negatives; its share, 33 %, of a set smaller than theirs."""
    return max(1, min(PUBLISHED, round(PUBLISHED / _PUBLISHED_SET * train_size)))


def first_of_other_classes(own: tf.Tensor, count: int) -> tf.Tensor:
    """Returns which of its candidates, in their order, an image takes.

    Args:
        own: Booleans ``(batch, candidates)``: whether a candidate is of the image's own class.
        count: How many others it takes.

    Returns:
        Booleans of the same shape: the first ``count`` that are not of its class, or all of these.
    """
    head, spare = own[:, :count], own[:, count:]
    # Only the spare ones, which are few, need counting: they stand in for those left out.
    missing = tf.reduce_sum(tf.cast(head, tf.int32), axis=1, keepdims=True)
    others = tf.logical_not(spare)
    stand_in = tf.logical_and(others, tf.cumsum(tf.cast(others, tf.int32), axis=1) <= missing)
    return tf.concat([tf.logical_not(head), stand_in], axis=1)


class Negatives:
    """Draws training images of other classes.

    Args:
        labels: Class number of each training image, ``(training images,)``.
        count: Negatives of an image.
        name: Of the objective, for the message.

    Attributes:
        count: As given.
        candidates: Training images that a batch shares: enough for every class.

    Raises:
        TfkdError: When all training images are of one class.
    """

    def __init__(self, labels: np.ndarray, count: int, name: str) -> None:
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise TfkdError(
                f"{name}: found {len(labels)} training images of one class, wanted images of other "
                "classes, to be negatives"
            )
        sizes = np.bincount(numbers)
        self.count = count
        self.candidates = min(len(labels), count + int(sizes.max()))
        self._total = len(labels)
        self._numbers = tf.constant(numbers, tf.int32)
        self._sizes = tf.constant(sizes, tf.int32)
        # Rows class by class, and where each class begins.
        self._by_class = tf.constant(np.argsort(numbers, kind="stable"), tf.int32)
        self._begins = tf.constant(np.cumsum(sizes) - sizes, tf.int32)
        self._are_scarce = len(labels) - int(sizes.max()) < count

    def of_batch(self, index: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws once for the whole batch.

        Args:
            index: Positions of the images in the training set, int ``(batch,)``.
            seed: Shape ``(2,)``; equal on every replica.

        Returns:
            The candidates, int32 ``(candidates,)``, and how often each image takes each of them,
            float32 ``(batch, candidates)``: rows sum to ``count``.
        """
        keys = _keys([self._total], seed, tf.int32)
        # The smallest in their order, as a whole sort has them. The others, most of a large set,
        # are not sorted. (Inverted bits are the opposite order, and never overflow.)
        rows = tf.math.top_k(tf.bitwise.invert(keys), self.candidates).indices
        numbers = tf.gather(self._numbers, index)
        own = numbers[:, None] == tf.gather(self._numbers, rows)[None, :]
        return rows, self._weights(first_of_other_classes(own, self.count), numbers)

    def of_each(self, index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws for every image.

        Args:
            index: Positions of the images of all replicas, int ``(all rows,)``.
            seed: Shape ``(2,)``; equal on every replica.

        Returns:
            How often each takes each training image, float32 ``(all rows, training images)``.
        """
        numbers = tf.gather(self._numbers, index)
        own = numbers[:, None] == self._numbers[None, :]
        keys = _keys([tf.shape(index)[0], self._total], seed, tf.int64)
        keys = tf.where(own, keys.dtype.max, keys)
        last = tf.sort(keys, axis=1)[:, min(self.count, self._total) - 1]
        taken = tf.logical_and(keys <= last[:, None], tf.logical_not(own))
        return self._weights(taken, numbers)

    def of_own_class(self, index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws for every image one of its class, maybe itself.

        Args:
            index: Positions of the images of all replicas, int ``(all rows,)``.
            seed: Shape ``(2,)``; equal on every replica.

        Returns:
            Positions in the training set, int32 ``(all rows,)``.
        """
        numbers = tf.gather(self._numbers, index)
        sizes = tf.gather(self._sizes, numbers)
        share = tf.random.stateless_uniform(tf.shape(index), seed, dtype=tf.float64)
        place = tf.cast(share * tf.cast(sizes, tf.float64), tf.int32)
        return tf.gather(self._by_class, tf.gather(self._begins, numbers) + place)

    def _weights(self, taken: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
        """Returns the chosen ones as numbers that sum to ``count`` for every image."""
        weights = tf.cast(taken, tf.float32)
        if not self._are_scarce:
            return weights
        others = tf.minimum(self.count, self._total - tf.gather(self._sizes, numbers))
        return weights * tf.cast(self.count / others, tf.float32)[:, None]


def _keys(shape, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Returns random integers of the whole range, by whose order things are shuffled."""
    return tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=dtype)
