"""VGG-small, the network of six 3x3 convolutions on which binary and adder networks are compared.

Two convolutions each of 128, 256 and 512 channels with batch normalization and ReLU, and a 2x2 max
pooling after every pair; the last feature map, flattened, feeds one linear layer. `stem` is the
first ReLU, `stage1..3` are the last ones of the pairs, and `pooled` is the flattened vector.

`adder=True` is the adder form: all convolutions but the first are adder layers, and the logits are
normalized in place of a bias. `logit_normalization=True` alone gives the convolutional network of
the same graph.

A reconstruction: neither the AdderNet nor the PKKD paper says how its VGG-small is wired (pooling,
classifier). This one has the 0.60 G multiplications between first and last layer that are reported
for it, and 0.61 G in all where 0.65 G are reported.

Source: Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020,
https://arxiv.org/abs/1912.13200; Xu et al., "Kernel Based Progressive Distillation for Adder Neural
Networks", NeurIPS 2020, https://arxiv.org/abs/2009.13044.
"""

from __future__ import annotations

import keras

from tfkd.models.layers.adder_blocks import adder_convolution, normalized_linear
from tfkd.models.layers.blocks import convolution, linear, normalization, relu, tap
from tfkd.models.registry import register

_CHANNELS = (128, 256, 512)


# Three poolings: of fewer than 8 pixels a side nothing would be left.
@register("vgg_small", smallest=8, default_classes=10)
def build(num_classes, input_shape, name, adder=False, logit_normalization=None):
    """Builds the network; `tfkd.models.create` says what the arguments are."""
    image = keras.Input(input_shape, name="image")
    features = convolution(image, _CHANNELS[0], 3, name="stem_conv")
    features = normalization(features, name="stem_bn")
    features = relu(features, name="stem")
    convolve = adder_convolution if adder else convolution
    for stage, channels in enumerate(_CHANNELS, start=1):
        # The stem is the first of the first pair.
        for number in (2,) if stage == 1 else (1, 2):
            features = convolve(features, channels, 3, name=f"stage{stage}_conv{number}")
            last = number == 2
            features = normalization(
                features, name=f"stage{stage}_pre" if last else f"stage{stage}_bn{number}"
            )
            features = relu(
                features, name=f"stage{stage}" if last else f"stage{stage}_relu{number}"
            )
        if stage == len(_CHANNELS):
            features = tap(features, name="pre_pool")
        features = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(features)
    pooled = keras.layers.Flatten(name="pooled")(features)
    if adder if logit_normalization is None else logit_normalization:
        return keras.Model(image, normalized_linear(pooled, num_classes), name=name)
    return keras.Model(image, linear(pooled, num_classes), name=name)
