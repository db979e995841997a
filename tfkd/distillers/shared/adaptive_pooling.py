"""Adaptive average pooling: feature maps of any height and width to any other.

Along an axis of ``m`` inputs, output ``i`` of ``n`` is the mean of the inputs from
``floor(i * m / n)`` to ``ceil((i + 1) * m / n) - 1``, as torch has it. Where ``n`` divides ``m``
these bins are the windows of plain average pooling; otherwise they overlap or differ in length; for
``n > m`` they repeat inputs. Rows and columns are averaged one after the other.

Plain pooling does the work where both sizes divide, a product with a constant matrix for each axis
otherwise. (``keras.layers.AdaptiveAveragePooling2D`` averages windows of two lengths at every
position and then picks some: several times the cost, and an error for one output.)

Maps are ``(batch, height, width, channels)`` of known height and width, of any float type, in which
the means are formed: a loss that wants float32 casts first.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.errors import TfkdError


def adaptive_average_pool(maps: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns maps averaged to a height and width; differentiable.

    Args:
        maps: Shape ``(batch, height, width, channels)``.
        size: Height and width of the result, each >= 1.

    Returns:
        Shape ``(batch, *size, channels)``, of the type of ``maps``; ``maps`` itself where it has
        that size.

    Raises:
        TfkdError: When height or width of the maps is unknown.
    """
    height, width = _known_size(maps)
    rows, columns = size
    if (height, width) == (rows, columns):
        return maps
    if size == (1, 1):
        return tf.reduce_mean(maps, axis=(1, 2), keepdims=True)
    if height % rows == 0 and width % columns == 0:
        window = (height // rows, width // columns)
        return tf.nn.avg_pool2d(maps, window, window, "VALID")
    channels = maps.shape[3]
    lines = tf.reshape(maps, (-1, height, width * channels))
    lines = tf.constant(_averages(height, rows), maps.dtype) @ lines
    pixels = tf.reshape(lines, (-1, width, channels))
    pixels = tf.constant(_averages(width, columns), maps.dtype) @ pixels
    return tf.reshape(pixels, (-1, rows, columns, channels))


def to_common_size(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns two maps at the smaller height and the smaller width of both.

    Args:
        first: Shape ``(batch, height, width, channels)``.
        second: The same, of any height, width and number of channels.

    Raises:
        TfkdError: When a height or width is unknown.
    """
    height, width = map(min, _known_size(first), _known_size(second))
    size = (height, width)
    return adaptive_average_pool(first, size), adaptive_average_pool(second, size)


def _known_size(maps: tf.Tensor) -> tuple[int, int]:
    height, width = maps.shape[1:3]
    if height is None or width is None:
        raise TfkdError(
            f"adaptive pooling: found maps of shape {tuple(maps.shape)}, wanted a known height and "
            "width"
        )
    return height, width


def _averages(inputs: int, outputs: int) -> np.ndarray:
    """Returns the matrix ``(outputs, inputs)`` whose rows average the bins along an axis."""
    matrix = np.zeros((outputs, inputs))
    for row in range(outputs):
        start, end = row * inputs // outputs, -(-(row + 1) * inputs // outputs)
        matrix[row, start:end] = 1 / (end - start)
    return matrix
