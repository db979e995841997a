"""ResNet and WRN for small images as one writes them with Keras alone: no taps, stock layers."""

from __future__ import annotations

import keras

layers = keras.layers


def resnet(depth: int, num_classes: int, shape: tuple[int, int, int]) -> keras.Model:
    """Returns a residual network of 6 n + 2 layers with 16, 16, 32 and 64 channels."""
    image = keras.Input(shape)
    x = layers.ReLU()(layers.BatchNormalization()(_convolution(image, 16)))
    for stage, width in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(layers.BatchNormalization()(_convolution(x, width, 3, stride)))
            y = layers.BatchNormalization()(_convolution(y, width))
            if stride > 1:
                x = layers.BatchNormalization()(_convolution(x, width, 1, stride))
            x = layers.ReLU()(layers.Add()([x, y]))
    return _classified(image, x, num_classes)


def wrn(depth: int, width: int, num_classes: int, shape: tuple[int, int, int]) -> keras.Model:
    """Returns a wide residual network of 6 n + 4 layers, normalized before each convolution."""
    image = keras.Input(shape)
    x = _convolution(image, 16)
    for stage in range(3):
        filters = 16 * width * 2**stage
        for block in range((depth - 4) // 6):
            stride = 2 if stage and not block else 1
            active = layers.ReLU()(layers.BatchNormalization()(x))
            y = _convolution(active, filters, 3, stride)
            y = _convolution(layers.ReLU()(layers.BatchNormalization()(y)), filters)
            if x.shape[-1] != filters:
                x = _convolution(active, filters, 1, stride)
            x = layers.Add()([x, y])
    return _classified(image, layers.ReLU()(layers.BatchNormalization()(x)), num_classes)


def _convolution(x, filters: int, size: int = 3, stride: int = 1):
    return layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(x)


def _classified(image, x, num_classes: int) -> keras.Model:
    return keras.Model(image, layers.Dense(num_classes)(layers.GlobalAveragePooling2D()(x)))
