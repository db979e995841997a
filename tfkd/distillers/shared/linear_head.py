"""An extra linear classifier on a feature of the student, for methods that train one beside it."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfkd.errors import TfkdError


class LinearHead(keras.layers.Layer):
    """Global average pooling, where the feature is a map, and a linear layer: feature -> logits.

    The weights start uniformly within ``+-1 / sqrt(channels)``, as the networks' classifiers do.

    Args:
        feature_shape: ``(None, channels)`` or ``(None, height, width, channels)``.
        num_classes: Width of the logits.
        seed: Seed of the initial weights.
        name: Name of the layer.

    Raises:
        TfkdError: For a feature of another shape.
    """

    def __init__(
        self,
        feature_shape: tuple[int | None, ...],
        num_classes: int,
        seed: int,
        name: str = "linear_head",
    ) -> None:
        super().__init__(name=name)
        if len(feature_shape) not in (2, 4) or feature_shape[-1] is None:
            raise TfkdError(
                f"{name}: found a feature of shape {tuple(feature_shape)}, wanted "
                "(batch, channels) or (batch, height, width, channels)"
            )
        channels = int(feature_shape[-1])
        bound = channels**-0.5
        self.classifier = keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.RandomUniform(-bound, bound, seed=seed),
            bias_initializer=keras.initializers.RandomUniform(-bound, bound, seed=seed + 1),
            dtype="float32",
            name=f"{name}_classifier",
        )
        self.classifier.build((None, channels))
        self.built = True

    def call(self, feature: tf.Tensor) -> tf.Tensor:
        """Returns the logits, float32 ``(batch, classes)``."""
        feature = tf.cast(feature, tf.float32)
        if feature.shape.rank == 4:
            feature = tf.reduce_mean(feature, axis=(1, 2))
        return self.classifier(feature)
