"""A partner of the same class for each image, for class-wise self-distillation (CS-KD)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.data import randomness
from tfkd.data.source import ImageSource


class ClassTable:
    """The examples of a training source, by class."""

    def __init__(self, source: ImageSource):
        """Sorts the examples by their labels."""
        labels = source.all_labels()
        counts = np.bincount(labels)
        # The input pipeline runs on the host, also where the networks do not.
        with tf.device("CPU:0"):
            self._sorted = tf.constant(np.argsort(labels, kind="stable"), tf.int32)
            self._counts = tf.constant(counts, tf.int32)
            self._starts = tf.constant(np.cumsum(counts) - counts, tf.int32)

    def partners(
        self, seed: int, epoch: tf.Tensor | int, index: tf.Tensor, label: tf.Tensor
    ) -> tf.Tensor:
        """Draws a partner for each example, uniformly in its class; it may be the example itself.

        Args:
            seed: Seed of the data set.
            epoch: Integer scalar; partners depend on (seed, epoch, index) alone.
            index: int32 (b,), positions in the un-shuffled training set.
            label: int32 (b,), their labels.

        Returns:
            int32 (b,), the positions of the partners.
        """
        drawn = randomness.example_bits(seed, "partners", epoch, index, 1)[:, 0]
        place = tf.math.floormod(drawn, tf.gather(self._counts, label))
        return tf.gather(self._sorted, tf.gather(self._starts, label) + place)
