"""The VGG networks: 8, 11, 13, 16, 19 for small images, and 16 in full, for ImageNet and for 32x32.

Five blocks of 3x3 convolutions with biases, 64, 128, 256, 512 and 512 channels wide; the first
is `stem`, the others `stage1..4`, each tapped at its last ReLU and, as `stem_pre`, `stage1_pre..`,
before it.

- For small images (`vgg8 vgg11 vgg13 vgg16_cifar vgg19`): with batch normalization; the first three
  blocks end in a 2x2 max pooling, and the fourth only for images 64 pixels high; the mean over
  the last feature map feeds one linear layer.
- For ImageNet (`vgg16_imagenet`, and `vgg16_bn_imagenet` with batch normalization): every
  block ends in a max pooling, the last one in `pre_pool`, which is averaged to 7x7 where it has
  another size; two hidden layers of `hidden=4096` units with dropout follow. `pooled` is the second
  one's output: the vector that the logits are linear in.
- `vgg16_32`: the same layers for small images, whose last map, 1x1 for 32x32, is taken as it is;
  `batch_norm=True` has batch normalization, `width=64` are the channels of the first block, to
  which the others keep their ratio.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", 2014, https://arxiv.org/abs/1409.1556; the small form as the distillation papers
compare on it.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import keras

from tfkd.errors import TfkdError
from tfkd.models.layers.blocks import classifier, convolution, linear, normalization, relu, tap
from tfkd.models.registry import register
from tfkd.settings import checked

_BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4")
_CHANNELS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16_cifar": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_HIDDEN = 4096
_POOLED_SIDE = 7
_DROPOUT = 0.5


def _register_small(network: str) -> None:
    # Three poolings: of fewer than 8 pixels a side nothing would be left.
    @register(network, smallest=8)
    def build(num_classes, input_shape, name):
        return small_vgg(_CONVOLUTIONS[network], num_classes, input_shape, name)


def _register_imagenet(network: str, normalized: bool) -> None:
    # Five poolings: of fewer than 32 pixels a side nothing would be left.
    @register(network, smallest=32, default_shape=(224, 224, 3), default_classes=1000)
    def build(num_classes, input_shape, name, hidden=_HIDDEN):
        hidden = _count(network, "hidden", hidden)
        convolutions = _CONVOLUTIONS["vgg16_cifar"]
        return imagenet_vgg(convolutions, normalized, hidden, num_classes, input_shape, name)


# Five poolings here as well.
@register("vgg16_32", smallest=32)
def _vgg16_32(num_classes, input_shape, name, batch_norm=False, width=64, hidden=_HIDDEN):
    batch_norm = checked(f"network {name!r}: batch_norm", bool, batch_norm)
    return imagenet_vgg(
        _CONVOLUTIONS["vgg16_cifar"],
        batch_norm,
        _count(name, "hidden", hidden),
        num_classes,
        input_shape,
        name,
        width=_count(name, "width", width),
        side=None,
    )


def _count(network: str, argument: str, value) -> int:
    """Returns an argument that has to be a whole number, 1 or more."""
    if not isinstance(value, numbers.Integral) or value < 1:
        raise TfkdError(
            f"network {network!r}: found {argument}={value!r}; wanted a whole number, 1 or more"
        )
    return int(value)


def small_vgg(
    convolutions: Sequence[int],
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
) -> keras.Model:
    """Builds a VGG network for small images.

    Args:
        convolutions: The number of convolutions of each of the five blocks.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.

    Returns:
        A functional model from images to logits.
    """
    image = keras.Input(input_shape, name="image")
    pooled_blocks = 4 if input_shape[0] == 64 else 3
    features = _blocks(image, convolutions, normalized=True, pooled_blocks=pooled_blocks)
    return keras.Model(image, classifier(features, num_classes, **_small_normal()), name=name)


def imagenet_vgg(
    convolutions: Sequence[int],
    normalized: bool,
    hidden: int,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
    *,
    width: int = _CHANNELS[0],
    side: int | None = _POOLED_SIDE,
) -> keras.Model:
    """Builds a VGG network with five poolings and two hidden layers.

    Args:
        convolutions: The number of convolutions of each of the five blocks.
        normalized: Whether batch normalization follows every convolution.
        hidden: The units of each of the two hidden layers.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.
        width: Channels of the first block.
        side: Height and width to which the last map is averaged; None for its own.

    Returns:
        A functional model from images to logits.

    Raises:
        TfkdError: If height or width may vary: the first hidden layer needs to know them.
    """
    if None in input_shape[:2]:
        raise TfkdError(
            f"network {name!r}: found input_shape={input_shape!r}; wanted a fixed height and width"
        )
    image = keras.Input(input_shape, name="image")
    features = _blocks(image, convolutions, normalized, pooled_blocks=5, width=width)
    features = tap(features, name="pre_pool")
    if side is not None and features.shape[1:3] != (side, side):
        features = keras.layers.AdaptiveAveragePooling2D(side, name="average_pool")(features)
    features = keras.layers.Flatten(name="flatten")(features)
    features = _hidden(features, hidden, name="fc1")
    features = keras.layers.Dropout(_DROPOUT, name="fc1_dropout")(features)
    features = _hidden(features, hidden, name="fc2")
    features = keras.layers.Dropout(_DROPOUT, name="pooled")(features)
    return keras.Model(image, linear(features, num_classes, **_small_normal()), name=name)


def _blocks(
    features,
    convolutions: Sequence[int],
    normalized: bool,
    pooled_blocks: int,
    width: int = _CHANNELS[0],
):
    """The five blocks; the first `pooled_blocks` of them end in a 2x2 max pooling."""
    widths = [width * channels // _CHANNELS[0] for channels in _CHANNELS]
    for number, (block, channels) in enumerate(zip(_BLOCKS, widths, strict=True)):
        for each in range(1, convolutions[number] + 1):
            features = convolution(features, channels, 3, use_bias=True, name=f"{block}_conv{each}")
            if normalized:
                features = normalization(features, name=f"{block}_bn{each}")
            if each < convolutions[number]:
                features = relu(features, name=f"{block}_relu{each}")
        features = tap(features, name=f"{block}_pre")
        features = relu(features, name=block)
        if number < pooled_blocks:
            features = keras.layers.MaxPooling2D(2, name=f"{block}_pool")(features)
    return features


def _hidden(features, units: int, name: str):
    """A hidden layer of the classifier."""
    features = keras.layers.Dense(
        units,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name=name,
    )(features)
    return relu(features, name=f"{name}_relu")


def _small_normal() -> dict:
    """How the linear layers of the published networks start."""
    return {
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01),
        "bias_initializer": "zeros",
    }


for _network in _CONVOLUTIONS:
    _register_small(_network)
_register_imagenet("vgg16_imagenet", normalized=False)
_register_imagenet("vgg16_bn_imagenet", normalized=True)
