"""Convolution in groups of channels, with a gradient on every device."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable(package="tfkd")
class GroupedConvolution(keras.layers.Conv2D):
    """A `keras.layers.Conv2D` with `groups`, as one convolution for each group.

    On a CPU, TensorFlow has no gradient of a grouped convolution, and Keras has XLA compile the
    layer instead, anew for every batch size: about nine times slower, measured on a step of a
    ShuffleNet layer. Arguments, weights and outputs are those of `keras.layers.Conv2D`, which is
    also the layer's stock form.
    """

    def convolution_op(self, inputs, kernel):
        axis = -1 if self.data_format == "channels_last" else 1
        convolve = super().convolution_op
        parts = zip(
            keras.ops.split(inputs, self.groups, axis),
            keras.ops.split(kernel, self.groups, -1),
            strict=True,
        )
        return keras.ops.concatenate([convolve(part, filters) for part, filters in parts], axis)
