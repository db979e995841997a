"""The constant that makes scores probabilities: estimated by the first batch, then never changed.

For each network ``Z = total * mean exp(score)``, the mean over a batch and, of each image, its
positive and its negatives. It is part of the state of a run.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from tfkd.core import Context
from tfkd.distillers.shared.contrast import NETWORKS, Contrast, Scores, counted


def mean_exponential(scores: Scores, count: int) -> tf.Tensor:
    """Returns the mean of ``exp(score)`` over the positive and the negatives of each image.

    Args:
        scores: The scores.
        count: Negatives of an image.

    Returns:
        Shape ``(batch,)``.
    """
    negatives = tf.reduce_sum(scores.weights * tf.exp(scores.negative), axis=1)
    return (tf.exp(scores.positive) + negatives) / (1.0 + count)


class Partition(keras.layers.Layer):
    """The constants of both networks, 0 as long as they are not known.

    Args:
        name: Name of the layer.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.values = self.add_weight(
            shape=(len(NETWORKS),),
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name="values",
        )
        self.built = True

    def of(self, context: Context, scores: Mapping[str, Scores], contrast: Contrast) -> tf.Tensor:
        """Returns the constants of a step, float32 ``(2,)``, without gradient.

        They are 0 if neither this batch nor an earlier one had any negatives.

        Args:
            context: The step.
            scores: Its scores by network.
            contrast: What they were formed with.
        """
        values = tf.convert_to_tensor(self.values)
        rows = tf.shape(scores["student"].positive)[0]

        def estimate() -> tf.Tensor:
            means = [mean_exponential(scores[name], contrast.count) for name in NETWORKS]
            return tf.stack(means, axis=1)

        is_known = tf.reduce_all(values > 0)
        means = tf.cond(is_known, lambda: tf.zeros([rows, len(NETWORKS)]), estimate)
        # Replicas meet here, which they may not do inside the condition.
        means = context.gather(tf.stop_gradient(means))
        counts = tf.cast(counted(context, contrast.known), means.dtype)
        mean = tf.math.divide_no_nan(
            tf.linalg.matvec(means, counts, transpose_a=True), tf.reduce_sum(counts)
        )
        return tf.where(is_known, values, contrast.total * mean)

    def keep(self, values: tf.Tensor) -> None:
        """Keeps the constants that :meth:`of` returned."""
        self.values.assign(values)
