"""MobileNetV1, for ImageNet.

A 3x3 stem of stride 2, `stem`, and thirteen blocks of a depthwise 3x3 and a 1x1 convolution.
`stage1..4` are the features at a quarter, an eighth, a sixteenth and a thirty-second of the
image's size, where the next block halves it.

Source: Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam, "MobileNets: Efficient
Convolutional Neural Networks for Mobile Vision Applications", 2017,
https://arxiv.org/abs/1704.04861, with symmetric padding as the distillation papers have it.
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
    torch_uniform,
)
from tfkd.models.registry import register

_STEM = 32
# The blocks of each stage: channels at width 1, stride.
_STAGES = (
    ((64, 1), (128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *((512, 1),) * 5),
    ((1024, 2), (1024, 1)),
)


# Stem and stages halve the image five times: a smaller one would leave nothing to halve.
@register("mobilenetv1", smallest=32, default_shape=(224, 224, 3), default_classes=1000)
def _build(num_classes, input_shape, name, width=1.0):
    if not isinstance(width, (int, float)) or int(_STEM * width) < 1:
        raise TfkdError(f"network 'mobilenetv1': found width={width!r}; wanted 0.03125 or more")
    return mobilenetv1(width, num_classes, input_shape, name)


def mobilenetv1(
    width: float,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
) -> keras.Model:
    """Builds a MobileNetV1.

    Args:
        width: The factor of all channels.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.

    Returns:
        A functional model from images to logits.
    """
    image = keras.Input(input_shape, name="image")
    features = convolution(image, int(_STEM * width), 3, 2, name="stem_conv", start=torch_uniform)
    features = normalization(features, name="stem_bn")
    features = relu(features, name="stem")
    for stage, blocks in enumerate(_STAGES, start=1):
        for block, (channels, stride) in enumerate(blocks, start=1):
            prefix = f"stage{stage}_block{block}"
            features = depthwise_convolution(
                features, stride, name=f"{prefix}_depthwise_conv", start=torch_uniform
            )
            features = normalization(features, name=f"{prefix}_depthwise_bn")
            features = relu(features, name=f"{prefix}_depthwise_relu")
            features = convolution(
                features,
                int(channels * width),
                1,
                name=f"{prefix}_pointwise_conv",
                start=torch_uniform,
            )
            features = normalization(features, name=f"{prefix}_pointwise_bn")
            if block == len(blocks):
                features = tap(features, name=f"stage{stage}_pre")
                features = relu(features, name=f"stage{stage}")
            else:
                features = relu(features, name=f"{prefix}_pointwise_relu")
    return keras.Model(image, classifier(features, num_classes), name=name)
