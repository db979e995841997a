"""The residual networks for small images: ResNet 8, 14, 20, 32, 44, 56, 110, 8x4, 32x4.

A 3x3 stem and three stages of n = (depth - 2) / 6 basic blocks with strides 1, 2, 2. The names
without a factor have 16, 16, 32 and 64 channels in stem and stages, the `x4` ones 32, 64, 128
and 256; `widths=(stem, stage 1, stage 2, stage 3)` makes any of them thinner or wider.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015,
https://arxiv.org/abs/1512.03385, in the variant that the distillation papers compare on: a 1x1
convolution with batch normalisation wherever a block changes the shape.
"""

from __future__ import annotations

import keras

from tfkd.errors import TfkdError
from tfkd.models.blocks import classifier, convolution, normalization, relu
from tfkd.models.registry import register

_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)
_DEPTHS_AND_WIDTHS = {
    "resnet8": (8, _NARROW),
    "resnet14": (14, _NARROW),
    "resnet20": (20, _NARROW),
    "resnet32": (32, _NARROW),
    "resnet44": (44, _NARROW),
    "resnet56": (56, _NARROW),
    "resnet110": (110, _NARROW),
    "resnet8x4": (8, _WIDE),
    "resnet32x4": (32, _WIDE),
}


def _register(network: str, depth: int, widths: tuple[int, ...]) -> None:
    # Two stages halve the image: below 4 pixels a side a halving would leave nothing to halve.
    @register(network, smallest=4)
    def build(num_classes, input_shape, name, widths=widths):
        if len(widths) != 4 or any(int(width) != width or width < 1 for width in widths):
            raise TfkdError(
                f"{network}: widths {tuple(widths)}, wanted four channel counts >= 1, of the stem "
                "and of three stages"
            )
        return resnet(depth, tuple(int(width) for width in widths), num_classes, input_shape, name)


def resnet(
    depth: int,
    widths: tuple[int, ...],
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
) -> keras.Model:
    """Builds a residual network.

    Args:
        depth: The number of layers with weights on the longest path, 6 n + 2.
        widths: The channels of the stem and of each stage.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.

    Returns:
        A functional model from images to logits.
    """
    blocks = (depth - 2) // 6
    image = keras.Input(input_shape, name="image")
    features = convolution(image, widths[0], 3, name="stem_conv")
    features = normalization(features, name="stem_bn")
    features = relu(features, name="stem")
    for stage, width in enumerate(widths[1:], start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            features = _basic_block(
                features, width, stride, stage=stage, block=block, last=block == blocks
            )
    return keras.Model(image, classifier(features, num_classes), name=name)


def _basic_block(inputs, width: int, stride: int, *, stage: int, block: int, last: bool):
    """relu(shortcut(inputs) + two 3x3 convolutions); a stage's last sum and ReLU are its taps."""
    prefix = f"stage{stage}_block{block}"
    features = convolution(inputs, width, 3, stride, name=f"{prefix}_conv1")
    features = normalization(features, name=f"{prefix}_bn1")
    features = relu(features, name=f"{prefix}_relu1")
    features = convolution(features, width, 3, name=f"{prefix}_conv2")
    features = normalization(features, name=f"{prefix}_bn2")
    shortcut = inputs
    if stride > 1 or inputs.shape[-1] != width:
        shortcut = convolution(inputs, width, 1, stride, name=f"{prefix}_shortcut_conv")
        shortcut = normalization(shortcut, name=f"{prefix}_shortcut_bn")
    total = keras.layers.Add(name=f"stage{stage}_pre" if last else f"{prefix}_add")(
        [shortcut, features]
    )
    return relu(total, name=f"stage{stage}" if last else f"{prefix}_relu2")


for _network, (_depth, _widths) in _DEPTHS_AND_WIDTHS.items():
    _register(_network, _depth, _widths)
