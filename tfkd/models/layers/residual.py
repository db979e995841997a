"""The blocks of residual networks: two 3x3 convolutions, or a bottleneck of three."""

from __future__ import annotations

from collections.abc import Callable

import keras

from tfkd.models.layers.blocks import convolution, normalization, relu


def basic_block(
    inputs,
    width: int,
    stride: int,
    convolve: Callable = convolution,
    *,
    stage: int,
    block: int,
    last: bool,
):
    """relu(shortcut + two 3x3 convolutions); the first one has the stride.

    Args:
        inputs: (batch, height, width, channels).
        width: The number of output channels.
        stride: The step in both directions.
        convolve: Makes a convolution, as `blocks.convolution` does.
        stage: The number of the stage, from 1, for the layers' names.
        block: The number of the block in the stage, from 1, likewise.
        last: Whether the stage ends here, so that sum and ReLU bear the names of its taps.
    """
    prefix = f"stage{stage}_block{block}"
    features = convolve(inputs, width, 3, stride, name=f"{prefix}_conv1")
    features = normalization(features, name=f"{prefix}_bn1")
    features = relu(features, name=f"{prefix}_relu1")
    features = convolve(features, width, 3, name=f"{prefix}_conv2")
    features = normalization(features, name=f"{prefix}_bn2")
    return _sum(inputs, features, stride, convolve, 2, stage=stage, block=block, last=last)


def bottleneck(
    inputs,
    width: int,
    stride: int,
    convolve: Callable = convolution,
    *,
    stage: int,
    block: int,
    last: bool,
):
    """relu(shortcut + a 1x1, a 3x3 with the stride and a 1x1 convolution to 4 `width` channels).

    Args:
        inputs: (batch, height, width, channels).
        width: The number of channels of the 3x3 convolution.
        stride, convolve, stage, block, last: As in `basic_block`.
    """
    prefix = f"stage{stage}_block{block}"
    features = convolve(inputs, width, 1, name=f"{prefix}_conv1")
    features = normalization(features, name=f"{prefix}_bn1")
    features = relu(features, name=f"{prefix}_relu1")
    features = convolve(features, width, 3, stride, name=f"{prefix}_conv2")
    features = normalization(features, name=f"{prefix}_bn2")
    features = relu(features, name=f"{prefix}_relu2")
    features = convolve(features, 4 * width, 1, name=f"{prefix}_conv3")
    features = normalization(features, name=f"{prefix}_bn3")
    return _sum(inputs, features, stride, convolve, 3, stage=stage, block=block, last=last)


def _sum(
    inputs, features, stride: int, convolve: Callable, relus: int, *, stage: int, block: int, last
):
    """relu(shortcut + features): the shortcut is a convolution where the shape changes."""
    prefix = f"stage{stage}_block{block}"
    shortcut = inputs
    if stride > 1 or inputs.shape[-1] != features.shape[-1]:
        shortcut = convolve(inputs, features.shape[-1], 1, stride, name=f"{prefix}_shortcut_conv")
        shortcut = normalization(shortcut, name=f"{prefix}_shortcut_bn")
    total = keras.layers.Add(name=f"stage{stage}_pre" if last else f"{prefix}_add")(
        [shortcut, features]
    )
    return relu(total, name=f"stage{stage}" if last else f"{prefix}_relu{relus}")
