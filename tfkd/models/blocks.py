"""The layers that networks are made of, in the form of the published PyTorch code.

Padding is symmetric at every stride (Keras' "same" pads only right and bottom at stride 2), filters
start Kaiming-normal over the fan-out, the classifier starts as `torch.nn.Linear` does.
"""

from __future__ import annotations

import keras

from tfkd.models.batch_normalization import BatchNormalization


def convolution(inputs, filters: int, size: int, stride: int = 1, *, name: str):
    """A square convolution without bias, zero-padded by `size // 2` on every side.

    Args:
        inputs: (batch, height, width, channels).
        filters: The number of output channels.
        size: Height and width of the filters, odd.
        stride: The step in both directions.
        name: The layer's name.
    """
    padding = "same" if stride == 1 else "valid"
    if stride > 1 and size > 1:
        inputs = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(inputs)
    return keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal"
        ),
        name=name,
    )(inputs)


def normalization(inputs, *, name: str):
    """Batch normalisation with the momentum and epsilon of the published networks."""
    return BatchNormalization(name=name)(inputs)


def relu(inputs, *, name: str):
    """max(inputs, 0)."""
    return keras.layers.ReLU(name=name)(inputs)


def classifier(features, num_classes: int):
    """The last stage's feature maps -> `pre_pool` -> `pooled` -> `logits`.

    `pre_pool` is a layer that does nothing and becomes no operation: a name that every network
    has, whatever its last feature map is called, and that survives saving and cloning. The logits
    are float32 under every dtype policy.

    Args:
        features: (batch, height, width, channels).
        num_classes: The number of logits.

    Returns:
        The logits, (batch, num_classes).
    """
    features = keras.layers.Identity(name="pre_pool")(features)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    bound = pooled.shape[-1] ** -0.5
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        dtype="float32",
        name="logits",
    )(pooled)
