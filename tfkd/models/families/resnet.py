"""The residual networks for small images: ResNet 8, 14, 20, 32, 44, 56, 110, 8x4, 32x4.

A 3x3 stem and three stages of n = (depth - 2) / 6 basic blocks with strides 1, 2, 2. The names
without a factor have 16, 16, 32 and 64 channels in stem and stages, the `x4` ones 32, 64, 128
and 256; `widths=(stem, stage 1, stage 2, stage 3)` makes any of them thinner or wider.

`adder=True` is the adder form: every convolution of the blocks and shortcuts is an adder layer; the
stem stays a convolution and the classifier a linear layer, with batch normalization of the logits
in place of a bias. `logit_normalization=True` alone gives the convolutional network of the same
graph, layer for layer.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015,
https://arxiv.org/abs/1512.03385, in the variant that the distillation papers compare on: a 1x1
convolution with batch normalization wherever a block changes the shape. Adder form: Chen et al.,
"AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020,
https://arxiv.org/abs/1912.13200, as in the authors' code.
"""

from __future__ import annotations

import keras

from tfkd.errors import TfkdError
from tfkd.models.layers.adder_blocks import adder_convolution, normalized_classifier
from tfkd.models.layers.blocks import classifier, convolution, normalization, relu
from tfkd.models.layers.residual import basic_block
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
    def build(num_classes, input_shape, name, widths=widths, adder=False, logit_normalization=None):
        if len(widths) != 4 or any(int(width) != width or width < 1 for width in widths):
            raise TfkdError(
                f"{network}: widths {tuple(widths)}, wanted four channel counts >= 1, of the stem "
                "and of three stages"
            )
        return resnet(
            depth,
            tuple(int(width) for width in widths),
            num_classes,
            input_shape,
            name,
            adder=adder,
            logit_normalization=adder if logit_normalization is None else logit_normalization,
        )


def resnet(
    depth: int,
    widths: tuple[int, ...],
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
    *,
    adder: bool = False,
    logit_normalization: bool = False,
) -> keras.Model:
    """Builds a residual network.

    Args:
        depth: The number of layers with weights on the longest path, 6 n + 2.
        widths: The channels of the stem and of each stage.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.
        adder: Whether blocks and shortcuts are made of adder layers.
        logit_normalization: Whether the classifier has batch normalization in place of a bias.

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
            features = basic_block(
                features,
                width,
                stride,
                adder_convolution if adder else convolution,
                stage=stage,
                block=block,
                last=block == blocks,
            )
    classify = normalized_classifier if logit_normalization else classifier
    return keras.Model(image, classify(features, num_classes), name=name)


for _network, (_depth, _widths) in _DEPTHS_AND_WIDTHS.items():
    _register(_network, _depth, _widths)
