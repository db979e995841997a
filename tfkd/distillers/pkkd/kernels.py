"""The kernels of PKKD: raw layer outputs of two kinds of network, brought to where they compare.

Yixing Xu, Chang Xu, Xinghao Chen, Wei Zhang, Chunjing Xu and Yunhe Wang, "Kernel Based Progressive
Distillation for Adder Neural Networks", NeurIPS 2020, arXiv 2009.13044, equations 7, 8 and 13.

An adder layer gives ``-||x - f||_1`` and a convolution ``x . f``. The exponential of either, over a
temperature, is a kernel of input and filter::

    g(x, f) = exp(-||x - f||_1 / tau_a)     Laplace type, of an adder layer
    h(x, f) = exp(x . f / tau_c)            exponential, of a convolution

with ``tau = 2 sigma^2``. **Reconstruction**: no code was published, and the exact form of the
kernels is known from second hand only. That the exponent is the layer's raw output, the scale by
its logarithm, the bounds of the exponent and the standardization are choices made here.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfkd.core.divergences import as_float

LOWEST, HIGHEST = -30.0, 10.0
"""Bounds of the exponent, outside of which there is no gradient: e^10 squared is still ordinary."""

EPSILON = 1e-8
"""Least mean square and added to variances, which are small where a kernel is wide."""


def kernel_response(outputs: tf.Tensor, log_tau: tf.Tensor) -> tf.Tensor:
    """Returns ``exp(outputs / tau)``, with a bounded exponent.

    For an adder layer this is the Laplace kernel, for a convolution the exponential one.

    Args:
        outputs: Raw outputs of a layer, of any float type.
        log_tau: Scalar, the logarithm of ``2 sigma^2``, in float32 (float64 for float64 outputs).

    Returns:
        The same shape, float32 (float64 for float64 outputs).
    """
    exponent = as_float(outputs) * tf.exp(-log_tau)
    return tf.exp(tf.clip_by_value(exponent, LOWEST, HIGHEST))


def root_mean_square(
    features: tf.Tensor,
    rows: tf.Tensor | None = None,
    total: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tf.Tensor:
    """Returns the root of the mean square of a layer's outputs, a scalar.

    Arguments are those of :func:`standardized_channels`.
    """
    features = as_float(features)
    counted, count = _counted(features, rows, total)
    channels = tf.cast(tf.shape(features)[-1], features.dtype)
    mean = total(tf.reduce_sum(counted * tf.square(features))) / (count * channels)
    return tf.sqrt(tf.maximum(mean, EPSILON))


def standardized_channels(
    features: tf.Tensor,
    rows: tf.Tensor | None = None,
    total: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tf.Tensor:
    """Returns features with mean 0 and variance 1 in each channel, over batch and places.

    Args:
        features: Shape ``(batch, height, width, channels)``.
        rows: Shape ``(batch,)``, 0 or 1: which samples the statistics are formed of; ``None``: all.
        total: Sums a tensor over replicas.

    Returns:
        The same shape, float32 (float64 for float64 features).
    """
    features = as_float(features)
    counted, count = _counted(features, rows, total)
    mean = total(tf.reduce_sum(counted * features, axis=[0, 1, 2])) / count
    centered = features - mean
    variance = total(tf.reduce_sum(counted * tf.square(centered), axis=[0, 1, 2])) / count
    return centered * tf.math.rsqrt(variance + EPSILON)


def _counted(features: tf.Tensor, rows: tf.Tensor | None, total) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which samples count, ``(batch, 1, 1, 1)``, and how many places they have in all."""
    counted = tf.ones_like(features[:, :1, :1, :1])
    if rows is not None:
        counted *= tf.cast(tf.reshape(rows, [-1, 1, 1, 1]), features.dtype)
    places = tf.cast(tf.reduce_prod(tf.shape(features)[1:3]), features.dtype)
    return counted, tf.maximum(total(tf.reduce_sum(counted)) * places, 1.0)
