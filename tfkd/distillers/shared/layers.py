"""Layers of methods: connectors, projectors and heads, as the published code starts them.

Filters and biases start uniformly within ``1 / sqrt(inputs of one output)``, as those of torch do.
Every layer is built at once, from a seed of its own, so that a method has all its variables when
``setup`` returns and equal seeds make equal runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfkd.errors import TfkdError
from tfkd.models import BatchNormalization

Shape = tuple[int | None, ...]


def dense(
    inputs: int, units: int, seed: int, *, name: str, use_bias: bool = True, dtype=None
) -> keras.layers.Dense:
    """Returns a linear layer, features ``(..., inputs)`` -> ``(..., units)``.

    Args:
        inputs: Width of the features.
        units: Width of the result.
        seed: Seed of the first weights; that of the bias is one more.
        name: Name of the layer.
        use_bias: Whether a bias is added.
        dtype: Its dtype policy; ``None`` is the global one.
    """
    bound = inputs**-0.5
    layer = keras.layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound, seed=seed),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound, seed=seed + 1),
        dtype=dtype,
        name=name,
    )
    layer.build((None, inputs))
    return layer


def convolution(
    channels: int,
    filters: int,
    size: int,
    seed: int,
    *,
    name: str,
    stride: int = 1,
    use_bias: bool = True,
    dtype=None,
) -> keras.layers.Layer:
    """Returns a square convolution, zero-padded by ``size // 2`` on every side.

    (Keras' own "same" pads only right and bottom at stride 2.)

    Args:
        channels: Channels of the maps ``(batch, height, width, channels)``.
        filters: Channels of the result.
        size: Height and width of the filters.
        seed: Seed of the first weights; that of the bias is one more.
        name: Name of the layer.
        stride: The step in both directions.
        use_bias: Whether a bias is added.
        dtype: Its dtype policy; ``None`` is the global one.
    """
    bound = (channels * size**2) ** -0.5
    padded = stride > 1 and size > 1
    layer = keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="valid" if padded else "same",
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound, seed=seed),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound, seed=seed + 1),
        dtype=dtype,
        name=f"{name}_convolution" if padded else name,
    )
    if not padded:
        layer.build((None, None, None, channels))
        return layer
    padding = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_padding")
    return sequence([padding, layer], (None, None, None, channels), name=name)


def normalization(shape: Shape, *, name: str, dtype=None) -> BatchNormalization:
    """Returns batch normalization over the last axis of features of a shape, batch axis first."""
    layer = BatchNormalization(name=name, dtype=dtype)
    layer.build(shape)
    return layer


def sequence(layers: Sequence[keras.layers.Layer], shape: Shape, *, name: str) -> keras.Sequential:
    """Returns layers one after another, built for features of a shape, batch axis first."""
    chain = keras.Sequential(list(layers), name=name)
    chain.build(shape)
    return chain


def check_map(
    method: str, network: str, tap: str, shape: Shape
) -> tuple[int | None, int | None, int]:
    """Returns height, width and channels of a tap that must be a feature map.

    Args:
        method: Name of the method, for the message.
        network: ``student`` or ``teacher``.
        tap: Name of the tap.
        shape: Its shape, batch axis first.

    Raises:
        TfkdError: When it is none, or its number of channels is unknown.
    """
    if len(shape) != 4 or shape[-1] is None:
        raise TfkdError(
            f"{method}: found {network} tap {tap!r} of shape {described(shape)}, wanted a feature "
            "map (batch, height, width, channels)"
        )
    return shape[1], shape[2], int(shape[3])


def check_width(method: str, network: str, tap: str, shape: Shape) -> int:
    """Returns the width of a tap that must be a vector.

    Raises:
        TfkdError: When it is none, or its width is unknown.
    """
    if len(shape) != 2 or shape[-1] is None:
        raise TfkdError(
            f"{method}: found {network} tap {tap!r} of shape {described(shape)}, wanted a vector "
            "(batch, channels)"
        )
    return int(shape[1])


def mismatch(
    method: str, student_tap: str, student: Shape, teacher_tap: str, teacher: Shape, wanted: str
) -> TfkdError:
    """Returns the error of two features that no connector can bridge, with taps and shapes."""
    return TfkdError(
        f"{method}: found student tap {student_tap!r} of shape {described(student)} and teacher "
        f"tap {teacher_tap!r} of shape {described(teacher)}, wanted {wanted}"
    )


def described(shape: Shape) -> str:
    """Returns a shape without its batch axis, as messages write it: ``8 x 8 x 64``."""
    return " x ".join("?" if size is None else str(size) for size in shape[1:]) or "scalar"
