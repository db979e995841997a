"""Logit standardization: teacher and student are compared by shape, not by size, of their logits.

Shangquan Sun, Wenqi Ren, Jingzhi Li, Rui Wang and Xiaochun Cao, "Logit Standardization in Knowledge
Distillation", CVPR 2024, arXiv 2403.01427. Each row of logits is replaced by its z-score before it
is softened, student's and teacher's alike; any loss on logits can stand behind it::

    Z(z) = (z - mean_c z) / (deviation_c z + 1e-7),   p = softmax(Z(z) / T)

``T`` is the paper's base temperature: 2 in most of its CIFAR-100 runs, 3 in some.

Nothing is scaled here. The losses keep their own ``T^2``; the further factor of the published runs
(9 for KD) is the weight that the caller gives to the objective.

The deviation is that of two variants:

- ``clean`` divides by the number of classes C (the paper's algorithm, recalled and not read again);
- ``code`` divides by C - 1, as the published code does, with which papers compare.

They are one another's at other temperatures: ``code`` at ``T`` is ``clean`` at
``T * sqrt(C / (C - 1))``, 0.5 % more for 100 classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import tensorflow as tf

from tfkd.core.divergences import as_float
from tfkd.errors import TfkdError

Variant = Literal["code", "clean"]
"""By what the deviation divides: C, or C - 1 as in the published code."""

_LEAST_VARIANCE = 1e-30
_ROUNDING = 16


def check_variant(name: str, standardize: bool, variant: Variant, setting: str = "variant") -> None:
    """Refuses the published deviation of z-scores that are not formed.

    Args:
        name: Name of the objective.
        standardize: Its setting.
        variant: Its setting, by default ``clean``.
        setting: Name of that setting.

    Raises:
        TfkdError: When the variant would have no effect.
    """
    if variant == "code" and not standardize:
        raise TfkdError(
            f"{name}: found {setting}='code' with standardize=False, which has no deviation; "
            "wanted standardize=True"
        )


def standardized(logits: tf.Tensor, epsilon: float = 1e-7, variant: Variant = "clean") -> tf.Tensor:
    """Returns the z-score of each row, ``(z - mean) / (deviation + epsilon)``.

    A row of equal logits (a deviation no larger than ``epsilon`` and rounding) has no order to pass
    on: it becomes zeros without gradient, which would otherwise be larger by ``1 / epsilon``.

    Args:
        logits: Shape ``(batch, classes)``.
        epsilon: Added to the deviation.
        variant: By what it divides.

    Returns:
        Shape ``(batch, classes)``, float32 (float64 for float64 logits).
    """
    logits = as_float(logits)
    centered = logits - tf.reduce_mean(logits, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
    if variant == "code":
        variance *= logits.shape[-1] / (logits.shape[-1] - 1)
    # The root has no slope at 0, where even an unused branch would give a gradient of NaN.
    deviation = tf.sqrt(tf.maximum(variance, _LEAST_VARIANCE))
    rounding = _ROUNDING * np.finfo(logits.dtype.as_numpy_dtype).eps
    least = epsilon + rounding * tf.reduce_max(tf.abs(logits), axis=-1, keepdims=True)
    return tf.where(deviation > least, centered / (deviation + epsilon), tf.zeros_like(centered))
