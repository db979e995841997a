"""Logit standardization: teacher and student are compared by shape, not by size, of their logits.

Shangquan Sun, Wenqi Ren, Jingzhi Li, Rui Wang and Xiaochun Cao, "Logit Standardization in Knowledge
Distillation", CVPR 2024, arXiv 2403.01427. Each row of logits is replaced by its z-score before it
is softened, student's and teacher's alike; any loss on logits can stand behind it::

    Z(z) = (z - mean_c z) / (deviation_c z + 1e-7),   p = softmax(Z(z) / T)

``T`` is the paper's base temperature: 2 in most of its CIFAR-100 runs, 3 in some.

Nothing is scaled here. The losses keep their own ``T^2``; the further factor of the published runs
(9 for KD) is the weight that the caller gives to the objective.

Departure: the deviation divides by the number of classes (the paper's algorithm, recalled and not
read again); the published code divides by one less. Its ``T`` is therefore
``T * sqrt(classes / (classes - 1))`` here, 0.5 % more for 100 classes.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.core.divergences import as_float

_LEAST_VARIANCE = 1e-30
_ROUNDING = 16


def standardized(logits: tf.Tensor, epsilon: float = 1e-7) -> tf.Tensor:
    """Returns the z-score of each row, ``(z - mean) / (deviation + epsilon)``.

    A row of equal logits (a deviation no larger than ``epsilon`` and rounding) has no order to pass
    on: it becomes zeros without gradient, which would otherwise be larger by ``1 / epsilon``.

    Args:
        logits: Shape ``(batch, classes)``.
        epsilon: Added to the deviation.

    Returns:
        Shape ``(batch, classes)``, float32 (float64 for float64 logits).
    """
    logits = as_float(logits)
    centered = logits - tf.reduce_mean(logits, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
    # The root has no slope at 0, where even an unused branch would give a gradient of NaN.
    deviation = tf.sqrt(tf.maximum(variance, _LEAST_VARIANCE))
    rounding = _ROUNDING * np.finfo(logits.dtype.as_numpy_dtype).eps
    least = epsilon + rounding * tf.reduce_max(tf.abs(logits), axis=-1, keepdims=True)
    return tf.where(deviation > least, centered / (deviation + epsilon), tf.zeros_like(centered))
