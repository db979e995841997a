"""The layers that networks are made of, in the form of the published PyTorch code.

Padding is symmetric at every stride (Keras' "same" pads only right and bottom at stride 2). Filters
start Kaiming-normal over the fan-out, or as `torch.nn.Conv2d` does where the published code leaves
them so; the classifier starts as `torch.nn.Linear` does, unless the published code says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from tfkd.models.layers.batch_normalization import BatchNormalization
from tfkd.models.layers.grouped_convolution import GroupedConvolution


def kaiming_normal(
    depthwise: bool = False, seed: int | None = None
) -> keras.initializers.Initializer:
    """Normal values of variance 2 / (filters * height * width), as most of the networks start.

    He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852.

    Args:
        depthwise: Whether it is for a depthwise kernel, whose channels Keras takes for inputs where
            torch takes them for filters.
        seed: A seed of its own; None draws as `keras.utils.set_random_seed` has it.
    """
    mode = "fan_in" if depthwise else "fan_out"
    return keras.initializers.VarianceScaling(2.0, mode, "untruncated_normal", seed=seed)


def torch_uniform(depthwise: bool = False) -> keras.initializers.Initializer:
    """Uniform values within 1 / sqrt(inputs of one output), as a convolution of torch starts.

    Args:
        depthwise: Whether it is for a depthwise kernel, where one output has a single channel.
    """
    mode = "fan_out" if depthwise else "fan_in"
    return keras.initializers.VarianceScaling(1 / 3, mode=mode, distribution="uniform")


def convolution(
    inputs,
    filters: int,
    size: int,
    stride: int = 1,
    *,
    name: str,
    groups: int = 1,
    use_bias: bool = False,
    start: Callable[[], keras.initializers.Initializer] = kaiming_normal,
):
    """A square convolution, zero-padded by `size // 2` on every side.

    Args:
        inputs: (batch, height, width, channels).
        filters: The number of output channels.
        size: Height and width of the filters, odd.
        stride: The step in both directions.
        name: The layer's name.
        groups: The number of parts of the channels, of which each output sees one.
        use_bias: Whether a bias is added; it starts at 0.
        start: Makes the initializer of the filters.
    """
    inputs, padding = _padded(inputs, size, stride, name)
    kind, grouping = keras.layers.Conv2D, {}
    if groups > 1:
        kind, grouping = GroupedConvolution, {"groups": groups}
    return kind(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=start(),
        name=name,
        **grouping,
    )(inputs)


def depthwise_convolution(
    inputs,
    stride: int = 1,
    *,
    name: str,
    start: Callable[[bool], keras.initializers.Initializer] = kaiming_normal,
):
    """A 3x3 convolution of every channel by itself, without bias, zero-padded by 1 on every side.

    Args:
        inputs: (batch, height, width, channels).
        stride: The step in both directions.
        name: The layer's name.
        start: Makes the initializer of the filters, called with True.
    """
    inputs, padding = _padded(inputs, 3, stride, name)
    return keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding=padding,
        use_bias=False,
        depthwise_initializer=start(True),
        name=name,
    )(inputs)


def _padded(inputs, size: int, stride: int, name: str):
    """The inputs of a convolution, and the padding that is left for it to do itself."""
    if stride == 1:
        return inputs, "same"
    if size > 1:
        inputs = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(inputs)
    return inputs, "valid"


def normalization(inputs, *, name: str):
    """Batch normalization with the momentum and epsilon of the published networks."""
    return BatchNormalization(name=name)(inputs)


def relu(inputs, *, name: str):
    """max(inputs, 0)."""
    return keras.layers.ReLU(name=name)(inputs)


def tap(inputs, *, name: str):
    """A name for a tensor: a layer that does nothing and becomes no operation."""
    return keras.layers.Identity(name=name)(inputs)


def classifier(features, num_classes: int, **initializers):
    """The last stage's feature maps -> `pre_pool` -> `pooled` -> `logits`.

    `pre_pool` is a layer that does nothing and becomes no operation: a name that every network
    has, whatever its last feature map is called, and that survives saving and cloning. The logits
    are float32 under every dtype policy.

    Args:
        features: (batch, height, width, channels).
        num_classes: The number of logits.
        **initializers: As in `linear`.

    Returns:
        The logits, (batch, num_classes).
    """
    features = tap(features, name="pre_pool")
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    return linear(pooled, num_classes, **initializers)


def linear(
    pooled,
    num_classes: int,
    *,
    kernel_initializer=None,
    bias_initializer=None,
    name: str = "logits",
):
    """A linear classifier, float32 under every dtype policy.

    Args:
        pooled: (batch, channels).
        num_classes: The number of logits.
        kernel_initializer: How the kernel starts; uniform within 1 / sqrt(channels) if None.
        bias_initializer: How the bias starts; likewise.
        name: The layer's name.
    """
    bound = pooled.shape[-1] ** -0.5
    if kernel_initializer is None:
        kernel_initializer = keras.initializers.RandomUniform(-bound, bound)
    if bias_initializer is None:
        bias_initializer = keras.initializers.RandomUniform(-bound, bound)
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        dtype="float32",
        name=name,
    )(pooled)
