"""ShuffleNet V2 1x, in the variant of the distillation papers for small images.

A 1x1 stem of 24 channels, three stages of 116, 232 and 464 channels and a 1x1 convolution to 1024.
The first unit of a stage halves the image in two branches that are concatenated; 3, 7 and 3 units
follow that work on one half of the channels and let the other pass; each unit ends in a channel
shuffle. A stage's tap is its last shuffle; its `_pre` tap is the concatenation before the last ReLU
and before the shuffle, so in another order of channels.

Source: Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
Design", ECCV 2018, https://arxiv.org/abs/1807.11164.
"""

from __future__ import annotations

import keras

from tfkd.models.layers.blocks import (
    classifier,
    convolution,
    depthwise_convolution,
    normalization,
    relu,
    torch_uniform,
)
from tfkd.models.layers.channel_ops import check_one_side_is_fixed, halves, shuffle
from tfkd.models.registry import register

_STEM = 24
_HEAD = 1024
# The channels of each stage, and its units after the first.
_STAGES = ((116, 3), (232, 7), (464, 3))


# Three stages halve the image: below 8 pixels a side a halving would leave nothing to halve.
@register("shufflev2", smallest=8)
def shufflev2(
    num_classes: int, input_shape: tuple[int | None, int | None, int], name: str
) -> keras.Model:
    """Builds a ShuffleNet V2.

    Args:
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.

    Returns:
        A functional model from images to logits.

    Raises:
        TfkdError: If height and width both vary.
    """
    check_one_side_is_fixed(name, input_shape)
    image = keras.Input(input_shape, name="image")
    features = convolution(image, _STEM, 1, name="stem_conv", start=torch_uniform)
    features = normalization(features, name="stem_bn")
    features = relu(features, name="stem")
    for stage, (channels, units) in enumerate(_STAGES, start=1):
        features = _halving_unit(features, channels, f"stage{stage}_block1")
        for unit in range(2, units + 2):
            features = _unit(features, stage=stage, unit=unit, last=unit == units + 1)
    features = convolution(features, _HEAD, 1, name="final_conv", start=torch_uniform)
    features = normalization(features, name="final_bn")
    features = relu(features, name="final_relu")
    return keras.Model(image, classifier(features, num_classes), name=name)


def _halving_unit(inputs, channels: int, prefix: str):
    """Two branches of half the channels and half the size, concatenated and shuffled."""
    left = _depthwise(inputs, 2, prefix, 1)
    left = _pointwise(left, channels // 2, prefix, 2)
    left = relu(left, name=f"{prefix}_relu2")
    right = _pointwise(inputs, channels // 2, prefix, 3)
    right = relu(right, name=f"{prefix}_relu3")
    right = _depthwise(right, 2, prefix, 4)
    right = _pointwise(right, channels // 2, prefix, 5)
    right = relu(right, name=f"{prefix}_relu5")
    features = keras.layers.Concatenate(name=f"{prefix}_concat")([left, right])
    return shuffle(features, 2, name=f"{prefix}_shuffle")


def _unit(inputs, *, stage: int, unit: int, last: bool):
    """One half of the channels as it is, beside three convolutions of the other, shuffled."""
    prefix = f"stage{stage}_block{unit}"
    kept, features = halves(inputs, name=f"{prefix}_split")
    features = _pointwise(features, features.shape[-1], prefix, 1)
    features = relu(features, name=f"{prefix}_relu1")
    features = _depthwise(features, 1, prefix, 2)
    features = _pointwise(features, features.shape[-1], prefix, 3)
    if last:
        # The kept half went through a ReLU before, so one over both halves changes nothing, and the
        # features before it are a tensor of the network, which a tap must be.
        features = keras.layers.Concatenate(name=f"stage{stage}_pre")([kept, features])
        features = relu(features, name=f"{prefix}_relu3")
        return shuffle(features, 2, name=f"stage{stage}")
    features = relu(features, name=f"{prefix}_relu3")
    features = keras.layers.Concatenate(name=f"{prefix}_concat")([kept, features])
    return shuffle(features, 2, name=f"{prefix}_shuffle")


def _pointwise(inputs, channels: int, prefix: str, number: int):
    """A 1x1 convolution and its normalization."""
    features = convolution(inputs, channels, 1, name=f"{prefix}_conv{number}", start=torch_uniform)
    return normalization(features, name=f"{prefix}_bn{number}")


def _depthwise(inputs, stride: int, prefix: str, number: int):
    """A depthwise 3x3 convolution and its normalization."""
    features = depthwise_convolution(
        inputs, stride, name=f"{prefix}_conv{number}", start=torch_uniform
    )
    return normalization(features, name=f"{prefix}_bn{number}")
