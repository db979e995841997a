"""What the adder form of a network is made of, beside the blocks of the convolutional one.

Source: Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020,
https://arxiv.org/abs/1912.13200, as in the authors' code.
"""

from __future__ import annotations

import keras

from tfkd.adder import AdderConv2D
from tfkd.models.layers.batch_normalization import BatchNormalization


def adder_convolution(inputs, filters: int, size: int, stride: int = 1, *, name: str):
    """The adder layer that takes the place of `blocks.convolution`, zero-padded by `size // 2`.

    Args:
        inputs: (batch, height, width, channels).
        filters: The number of output channels.
        size: Height and width of the filters, odd.
        stride: The step in both directions.
        name: The layer's name.
    """
    return AdderConv2D(filters, size, strides=stride, name=name)(inputs)


def normalized_classifier(features, num_classes: int, *, use_bias: bool = False):
    """`blocks.classifier` with batch normalization of the logits.

    Args:
        features: (batch, height, width, channels).
        num_classes: The number of logits.
        use_bias: As for `normalized_linear`.

    Returns:
        The logits, (batch, num_classes), float32 under every dtype policy.
    """
    features = keras.layers.Identity(name="pre_pool")(features)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    return normalized_linear(pooled, num_classes, use_bias=use_bias)


def normalized_linear(pooled, num_classes: int, *, use_bias: bool = False):
    """A layer `linear` and the normalization `logits`, float32 under every dtype policy.

    Args:
        pooled: (batch, channels).
        num_classes: The number of logits.
        use_bias: Whether there is a bias before the normalization, which takes it away again; the
            published networks for ImageNet have one.
    """
    bound = pooled.shape[-1] ** -0.5
    logits = keras.layers.Dense(
        num_classes,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        dtype="float32",
        name="linear",
    )(pooled)
    return BatchNormalization(dtype="float32", name="logits")(logits)
