"""MobileNetV2 in the variant of the distillation papers: width 0.5, for images of 32x32 pixels.

It differs from the published network in four things: the activation is ReLU and not ReLU6; the
stem halves the image and after it only three of the seven groups of blocks do; channels are not
rounded to multiples of 8; the first block keeps its expanding convolution though it expands by 1.
Blocks end linearly, so there are no taps before a ReLU. `stage1` is the output of the first two
groups, `stage2` of the third, `stage3` of the fourth and fifth, `stage4` of the last two.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", CVPR 2018, https://arxiv.org/abs/1801.04381.
"""

from __future__ import annotations

import keras

from tfkd.errors import TfkdError
from tfkd.models.layers.blocks import (
    classifier,
    convolution,
    depthwise_convolution,
    normalization,
    relu,
    tap,
)
from tfkd.models.registry import register

_STEM = 32
_HEAD = 1280
# The groups of each stage: expansion, channels at width 1, blocks, stride of the first block.
_STAGES = (
    ((1, 16, 1, 1), (6, 24, 2, 1)),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)


# Stem and stages halve the image four times: a smaller one would leave nothing to halve.
@register("mobilenetv2", smallest=16)
def _build(num_classes, input_shape, name, width=0.5):
    if not isinstance(width, (int, float)) or int(16 * width) < 1:
        raise TfkdError(f"network 'mobilenetv2': found width={width!r}; wanted 0.0625 or more")
    return mobilenetv2(width, num_classes, input_shape, name)


def mobilenetv2(
    width: float,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
) -> keras.Model:
    """Builds a MobileNetV2.

    Args:
        width: The factor of all channels; those of the last convolution only grow with it.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.

    Returns:
        A functional model from images to logits.
    """
    image = keras.Input(input_shape, name="image")
    features = convolution(image, int(_STEM * width), 3, 2, name="stem_conv")
    features = normalization(features, name="stem_bn")
    features = relu(features, name="stem")
    for stage, groups in enumerate(_STAGES, start=1):
        blocks = [
            (expansion, int(channels * width), stride if block == 0 else 1)
            for expansion, channels, count, stride in groups
            for block in range(count)
        ]
        for block, (expansion, channels, stride) in enumerate(blocks, start=1):
            prefix = f"stage{stage}_block{block}"
            features = _inverted_residual(features, expansion, channels, stride, prefix)
        features = tap(features, name=f"stage{stage}")
    features = convolution(features, int(_HEAD * max(width, 1)), 1, name="final_conv")
    features = normalization(features, name="final_bn")
    features = relu(features, name="final_relu")
    logits = classifier(
        features,
        num_classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer="zeros",
    )
    return keras.Model(image, logits, name=name)


def _inverted_residual(inputs, expansion: int, channels: int, stride: int, prefix: str):
    """Expanding 1x1, depthwise 3x3 and projecting 1x1 convolution, added to an input of its size.

    Only the first two are followed by a ReLU.
    """
    features = convolution(inputs, inputs.shape[-1] * expansion, 1, name=f"{prefix}_expand_conv")
    features = normalization(features, name=f"{prefix}_expand_bn")
    features = relu(features, name=f"{prefix}_expand_relu")
    features = depthwise_convolution(features, stride, name=f"{prefix}_depthwise_conv")
    features = normalization(features, name=f"{prefix}_depthwise_bn")
    features = relu(features, name=f"{prefix}_depthwise_relu")
    features = convolution(features, channels, 1, name=f"{prefix}_project_conv")
    features = normalization(features, name=f"{prefix}_project_bn")
    if stride == 1 and inputs.shape[-1] == channels:
        features = keras.layers.Add(name=f"{prefix}_add")([inputs, features])
    return features
