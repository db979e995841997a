"""The residual networks of four stages: ResNet 18, 34, 50, 101, and 18 and 50 for small images.

Basic blocks (18, 34) or bottlenecks (50, 101) of 64, 128, 256 and 512 channels with strides 1, 2,
2, 2; a bottleneck's stride is on its 3x3 convolution and its output four times as wide. The
networks for ImageNet begin with a 7x7 convolution and a 3x3 max pooling, both of stride 2, those
for small images (`resnet18_cifar resnet50_cifar`) with a 3x3 convolution; `stem` is its ReLU,
before the pooling. `width=64` makes any of them thinner or wider.

`adder=True` is the adder form: every convolution of the blocks and shortcuts is an adder layer; the
stem stays a convolution and the classifier a linear layer, followed by batch normalization of the
logits. `logit_normalization=True` alone gives the convolutional network of the same graph.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015,
https://arxiv.org/abs/1512.03385, with the stride on the 3x3 convolution as in torchvision. Adder
form: Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020,
https://arxiv.org/abs/1912.13200, as in the authors' code.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable

import keras

from tfkd.errors import TfkdError
from tfkd.models.layers.adder_blocks import adder_convolution, normalized_classifier
from tfkd.models.layers.blocks import classifier, convolution, normalization, relu
from tfkd.models.layers.residual import basic_block, bottleneck
from tfkd.models.registry import register

_FORMS = {
    "resnet18": (basic_block, (2, 2, 2, 2)),
    "resnet34": (basic_block, (3, 4, 6, 3)),
    "resnet50": (bottleneck, (3, 4, 6, 3)),
    "resnet101": (bottleneck, (3, 4, 23, 3)),
}


def _register_small(network: str, form: str) -> None:
    # Three stages halve the image: below 8 pixels a side a halving would leave nothing to halve.
    @register(network, smallest=8)
    def build(num_classes, input_shape, name, width=64, adder=False, logit_normalization=None):
        arguments = num_classes, input_shape, name, width, adder, logit_normalization
        return _checked(form, False, *arguments)


def _register_imagenet(network: str) -> None:
    # The stem quarters the image before that.
    @register(network, smallest=32, default_shape=(224, 224, 3), default_classes=1000)
    def build(num_classes, input_shape, name, width=64, adder=False, logit_normalization=None):
        arguments = num_classes, input_shape, name, width, adder, logit_normalization
        return _checked(network, True, *arguments)


def _checked(
    form: str,
    imagenet_stem: bool,
    num_classes,
    input_shape,
    name,
    width,
    adder,
    logit_normalization,
) -> keras.Model:
    if not isinstance(width, numbers.Integral) or width < 1:
        raise TfkdError(
            f"network {name!r}: found width={width!r}; wanted a whole number, 1 or more"
        )
    block, blocks = _FORMS[form]
    classify = classifier
    if adder:
        block = functools.partial(block, convolve=adder_convolution)
    if adder if logit_normalization is None else logit_normalization:
        classify = functools.partial(normalized_classifier, use_bias=True)
    stem = int(width), imagenet_stem
    return four_stages(block, blocks, *stem, classify, num_classes, input_shape, name)


def four_stages(
    block: Callable,
    blocks: tuple[int, ...],
    width: int,
    imagenet_stem: bool,
    classify: Callable,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
) -> keras.Model:
    """Builds a residual network of four stages.

    Args:
        block: `basic_block` or `bottleneck`, perhaps with another convolution.
        blocks: The number of blocks of each stage.
        width: The channels of the stem and of the first stage's 3x3 convolutions.
        imagenet_stem: Whether the stem quarters the image.
        classify: Makes the logits of the last feature maps, as `blocks.classifier` does.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.

    Returns:
        A functional model from images to logits.
    """
    image = keras.Input(input_shape, name="image")
    size, stride = (7, 2) if imagenet_stem else (3, 1)
    features = convolution(image, width, size, stride, name="stem_conv")
    features = normalization(features, name="stem_bn")
    features = relu(features, name="stem")
    if imagenet_stem:
        # Nothing is below 0 after a ReLU: to the maximum, zeros are as good as no padding.
        features = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(features)
        features = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(features)
    for stage, count in enumerate(blocks, start=1):
        for number in range(1, count + 1):
            features = block(
                features,
                width * 2 ** (stage - 1),
                2 if stage > 1 and number == 1 else 1,
                stage=stage,
                block=number,
                last=number == count,
            )
    return keras.Model(image, classify(features, num_classes), name=name)


_register_small("resnet18_cifar", "resnet18")
_register_small("resnet50_cifar", "resnet50")
for _network in _FORMS:
    _register_imagenet(_network)
