"""The wide residual networks: WRN 16-1, 16-2, 40-1, 40-2, and of any depth and width.

A 3x3 stem of 16 channels and three stages of n = (depth - 4) / 6 blocks with strides 1, 2, 2 and
16, 32 and 64 times `width` channels. A block normalizes *before* it convolves; where it changes the
number of channels, its shortcut is a bare 1x1 convolution of the normalized input, otherwise the
input itself. So `stem` and `stage1..3` are bare sums, and `stage1_pre..`, the features before a
ReLU, are those sums after the normalization that comes next.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", 2016, https://arxiv.org/abs/1605.07146,
without dropout, as the distillation papers compare on them.
"""

from __future__ import annotations

import numbers

import keras

from tfkd.errors import TfkdError
from tfkd.models.layers.blocks import classifier, convolution, normalization, relu, tap
from tfkd.models.registry import register

# Two stages halve the image: below 4 pixels a side a halving would leave nothing to halve.
_SMALLEST = 4


def _register(network: str, depth: int, width: int) -> None:
    @register(network, smallest=_SMALLEST)
    def build(num_classes, input_shape, name):
        return wrn(depth, width, num_classes, input_shape, name)


for _depth, _width in ((16, 1), (16, 2), (40, 1), (40, 2)):
    _register(f"wrn_{_depth}_{_width}", _depth, _width)


@register("wrn", smallest=_SMALLEST)
def _of_any_size(num_classes, input_shape, name, depth=28, width=10):
    if not isinstance(depth, numbers.Integral) or depth < 10 or depth % 6 != 4:
        raise TfkdError(f"network 'wrn': found depth={depth!r}; wanted 10, 16, 22.., 6 n + 4")
    if not isinstance(width, numbers.Integral) or width < 1:
        raise TfkdError(f"network 'wrn': found width={width!r}; wanted a whole number, 1 or more")
    return wrn(int(depth), int(width), num_classes, input_shape, name)


def wrn(
    depth: int,
    width: int,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
) -> keras.Model:
    """Builds a wide residual network.

    Args:
        depth: 6 n + 4 for n blocks a stage.
        width: The factor of the channels.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.

    Returns:
        A functional model from images to logits.
    """
    blocks = (depth - 4) // 6
    image = keras.Input(input_shape, name="image")
    features = convolution(image, 16, 3, name="stem_conv")
    features = tap(features, name="stem")
    for stage in (1, 2, 3):
        filters = 16 * width * 2 ** (stage - 1)
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            features = _block(
                features, filters, stride, stage=stage, block=block, last=block == blocks
            )
    features = normalization(features, name="final_bn")
    features = tap(features, name="stage3_pre")
    features = relu(features, name="final_relu")
    return keras.Model(
        image, classifier(features, num_classes, bias_initializer="zeros"), name=name
    )


def _block(inputs, filters: int, stride: int, *, stage: int, block: int, last: bool):
    """shortcut + two 3x3 convolutions, each of them after normalization and ReLU."""
    prefix = f"stage{stage}_block{block}"
    active = normalization(inputs, name=f"{prefix}_bn1")
    if block == 1 and stage > 1:
        active = tap(active, name=f"stage{stage - 1}_pre")
    active = relu(active, name=f"{prefix}_relu1")
    features = convolution(active, filters, 3, stride, name=f"{prefix}_conv1")
    features = normalization(features, name=f"{prefix}_bn2")
    features = relu(features, name=f"{prefix}_relu2")
    features = convolution(features, filters, 3, name=f"{prefix}_conv2")
    shortcut = inputs
    if inputs.shape[-1] != filters:
        shortcut = convolution(active, filters, 1, stride, name=f"{prefix}_shortcut_conv")
    return keras.layers.Add(name=f"stage{stage}" if last else f"{prefix}_add")([shortcut, features])
