"""The running means of all losses of a run, kept as one vector."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


class TermMeans(keras.metrics.Metric):
    """Sample-weighted means of several named scalars; one update for all of them.

    Args:
        names: Names of the scalars, in the order in which they are given to ``update_state``.
        name: Name of the metric itself.
    """

    def __init__(self, names: Sequence[str], name: str = "terms") -> None:
        super().__init__(name=name)
        self._names = tuple(names)
        self.totals = self.add_variable((len(self._names),), "zeros", name="totals")
        self.samples = self.add_variable((), "zeros", name="samples")

    def update_state(self, values: tf.Tensor, samples: tf.Tensor) -> None:
        """Adds the values of one batch.

        Args:
            values: Shape ``(names,)``, means over the batch.
            samples: Scalar, the number of samples that they stand for.
        """
        samples = tf.cast(samples, tf.float32)
        self.totals.assign(self.totals + tf.cast(values, tf.float32) * samples)
        self.samples.assign(self.samples + samples)

    def result(self) -> dict[str, tf.Tensor]:
        """Returns the mean of each scalar by name."""
        means = tf.math.divide_no_nan(
            tf.convert_to_tensor(self.totals), tf.convert_to_tensor(self.samples)
        )
        return {name: means[position] for position, name in enumerate(self._names)}
