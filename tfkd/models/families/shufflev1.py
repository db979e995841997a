"""ShuffleNet V1 with three groups, in the variant of the distillation papers for small images.

A 1x1 stem of 24 channels and three stages of 4, 8 and 4 units, 240, 480 and 960 channels wide. The
first unit of a stage halves the image and *concatenates* its shortcut, a 3x3 average that counts
the zeros of its padding; the others add it. The first 1x1 convolution of all is not grouped.

It differs from the paper in the stem (1x1, no pooling), in a ReLU after the depthwise convolution,
and in the first unit's bottleneck, which is a quarter of the channels that the unit adds.

Source: Zhang, Zhou, Lin, Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for
Mobile Devices", CVPR 2018, https://arxiv.org/abs/1707.01083.
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
from tfkd.models.layers.channel_ops import check_one_side_is_fixed, shuffle
from tfkd.models.registry import register

_GROUPS = 3
_STEM = 24
# The channels and the units of each stage.
_STAGES = ((240, 4), (480, 8), (960, 4))


# Three stages halve the image: below 8 pixels a side a halving would leave nothing to halve.
@register("shufflev1", smallest=8)
def shufflev1(
    num_classes: int, input_shape: tuple[int | None, int | None, int], name: str
) -> keras.Model:
    """Builds a ShuffleNet V1.

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
        for unit in range(1, units + 1):
            features = _unit(features, channels, stage=stage, unit=unit, last=unit == units)
    return keras.Model(image, classifier(features, num_classes), name=name)


def _unit(inputs, channels: int, *, stage: int, unit: int, last: bool):
    """relu(shortcut and grouped 1x1, shuffle, depthwise 3x3 and grouped 1x1 convolution)."""
    prefix = f"stage{stage}_block{unit}"
    halving = unit == 1
    added = channels - inputs.shape[-1] if halving else channels
    inner = added // 4
    groups = 1 if stage == 1 and halving else _GROUPS
    features = convolution(
        inputs, inner, 1, name=f"{prefix}_conv1", groups=groups, start=torch_uniform
    )
    features = normalization(features, name=f"{prefix}_bn1")
    features = relu(features, name=f"{prefix}_relu1")
    if groups > 1:
        features = shuffle(features, groups, name=f"{prefix}_shuffle")
    features = depthwise_convolution(
        features, 2 if halving else 1, name=f"{prefix}_conv2", start=torch_uniform
    )
    features = normalization(features, name=f"{prefix}_bn2")
    features = relu(features, name=f"{prefix}_relu2")
    features = convolution(
        features, added, 1, name=f"{prefix}_conv3", groups=_GROUPS, start=torch_uniform
    )
    features = normalization(features, name=f"{prefix}_bn3")
    if halving:
        shortcut = keras.layers.ZeroPadding2D(1, name=f"{prefix}_shortcut_pad")(inputs)
        shortcut = keras.layers.AveragePooling2D(3, 2, name=f"{prefix}_shortcut_pool")(shortcut)
        features = keras.layers.Concatenate(name=f"{prefix}_concat")([features, shortcut])
    else:
        name = f"stage{stage}_pre" if last else f"{prefix}_add"
        features = keras.layers.Add(name=name)([features, inputs])
    return relu(features, name=f"stage{stage}" if last else f"{prefix}_relu3")
