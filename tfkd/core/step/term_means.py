"""The running means of all losses of a run, kept as one vector."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import keras
import tensorflow as tf


class TermMeans(keras.metrics.Metric):
    """Means of several named scalars over the samples of all batches; one update for all of them.

    Args:
        names: Names of the scalars, in the order in which they are given to ``update_state``.
        name: Name of the metric itself.
        weighted: Names of those that are weighted means, such as accuracies: a batch counts for
            them by the sum of its weights, and not of its samples.
    """

    def __init__(
        self, names: Sequence[str], name: str = "terms", weighted: Collection[str] = ()
    ) -> None:
        super().__init__(name=name)
        self.names = tuple(names)
        self._is_weighted = [each in weighted for each in self.names]
        self.totals = self.add_variable((len(self.names),), "zeros", name="totals")
        self.samples = self.add_variable((), "zeros", name="samples")
        if any(self._is_weighted):
            self.weights_sum = self.add_variable((), "zeros", name="weights_sum")

    def update_state(
        self, values: tf.Tensor, samples: tf.Tensor, weights: tf.Tensor | None = None
    ) -> None:
        """Adds the values of one batch.

        Args:
            values: Shape ``(names,)``, means over the batch.
            samples: Scalar, the number of samples that they stand for.
            weights: Scalar, the sum of their weights; ``None`` is 1 each.
        """
        samples = tf.cast(samples, tf.float32)
        share = samples
        if any(self._is_weighted):
            weights = samples if weights is None else tf.cast(weights, tf.float32)
            share = tf.where(self._is_weighted, weights, samples)
            self.weights_sum.assign(self.weights_sum + weights)
        self.totals.assign(self.totals + tf.cast(values, tf.float32) * share)
        self.samples.assign(self.samples + samples)

    def result(self) -> dict[str, tf.Tensor]:
        """Returns the mean of each scalar by name."""
        divisor = tf.convert_to_tensor(self.samples)
        if any(self._is_weighted):
            of_weighted = tf.convert_to_tensor(self.weights_sum)
            divisor = tf.where(self._is_weighted, of_weighted, divisor)
        means = tf.math.divide_no_nan(tf.convert_to_tensor(self.totals), divisor)
        return {name: means[position] for position, name in enumerate(self.names)}
