"""DIST: the student's predictions correlate with the teacher's, by sample and by class.

Tao Huang, Shan You, Fei Wang, Chen Qian and Chang Xu, "Knowledge Distillation from A Stronger
Teacher", NeurIPS 2022, arXiv 2205.10536::

    L = CE + w * (beta * inter + gamma * intra)
    inter = tau^2 * (1 - mean_batch   rho(p_b, q_b))      (rows: the classes of one sample)
    intra = tau^2 * (1 - mean_classes rho(p_:c, q_:c))    (columns: one class over the batch)

``p = softmax(z / tau)`` student, ``q = softmax(v / tau)`` teacher, ``rho`` Pearson's correlation,
formed as ``<a, b> / (|a| |b| + 1e-8)`` of the centered vectors: the 1e-8 stands beside the product
of the norms, as published, and at ``tau = 4`` it is felt in small batches. ``w`` is the weight of
this objective.

Published for CIFAR-100: ``tau = 4``, ``beta = gamma = 1``, ``w = 2``; for ImageNet ``tau = 1``,
``w = 2``. ``student_loss_weight`` is 1.

``intra`` couples the samples of a batch: under several replicas it is formed over all of them.
Where the batch has a ``sample_weight``, that weighs the samples in the correlation, so that rows
of weight 0 have no part in it. A batch of one sample has no correlation, and ``intra`` is
``tau^2`` without gradient.

Departure: a vector that is constant but for rounding has the correlation 0 and no gradient; the
published code correlates the rounding errors.

Logits are ``(batch, classes)``; results are float32 (float64 for float64 logits).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.taps import LOGITS
from tfkd.settings import NonNegative, Positive, field

_EPSILON = 1e-8
_LEAST_SQUARE = 1e-30
_ROUNDING = 16
"""How many units of rounding, relative to its values, a vector may vary and still be constant."""


def pearson(
    first: tf.Tensor, second: tf.Tensor, axis: int, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns Pearson's correlation along an axis.

    It is 0 and carries no gradient where a vector is constant but for rounding: the published form
    correlates the rounding errors there, with gradients of up to 1e8.

    Args:
        first: Shape ``(rows, columns)``.
        second: Same shape.
        axis: 0 correlates columns, 1 rows.
        weights: Weight of each entry along that axis, broadcast against ``first``; ``None`` is 1
            each.

    Returns:
        Shape ``(columns,)`` or ``(rows,)``.
    """
    weights = tf.ones_like(first) if weights is None else weights * tf.ones_like(first)
    count = tf.reduce_sum(weights, axis=axis, keepdims=True)

    def moments(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        total = tf.reduce_sum(weights * values, axis=axis, keepdims=True)
        centered = values - tf.math.divide_no_nan(total, count)
        square = tf.reduce_sum(weights * tf.square(centered), axis=axis)
        rounding = (_ROUNDING * np.finfo(values.dtype.as_numpy_dtype).eps) ** 2
        varies = square > rounding * tf.reduce_sum(weights * tf.square(values), axis=axis)
        # The root has no slope at 0, where even an unused branch would give a gradient of NaN.
        return centered, tf.sqrt(tf.maximum(square, _LEAST_SQUARE)), varies

    first, first_norm, first_varies = moments(first)
    second, second_norm, second_varies = moments(second)
    product = tf.reduce_sum(weights * first * second, axis=axis)
    rho = product / (first_norm * second_norm + _EPSILON)
    return tf.where(tf.logical_and(first_varies, second_varies), rho, tf.zeros_like(rho))


def inter_class_loss(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float = 4.0
) -> tf.Tensor:
    """Returns ``tau^2 * (1 - rho)`` of the class probabilities of each sample."""
    student, teacher = _softened(student_logits, teacher_logits, temperature)
    return temperature**2 * (1.0 - pearson(student, teacher, axis=1))


def intra_class_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperature: float = 4.0,
    sample_weight: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns ``tau^2 * (1 - rho)`` of each class over the batch, in the mean over classes.

    Logits are those of the whole batch, ``sample_weight`` weighs its samples in the correlation.
    """
    student, teacher = _softened(student_logits, teacher_logits, temperature)
    weights = None
    if sample_weight is not None:
        weights = tf.cast(tf.reshape(sample_weight, [-1, 1]), student.dtype)
    rho = pearson(student, teacher, axis=0, weights=weights)
    return temperature**2 * (1.0 - tf.reduce_mean(rho))


def _softened(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    return (
        tf.nn.softmax(as_float(student_logits) / temperature),
        tf.nn.softmax(as_float(teacher_logits) / temperature),
    )


@register("dist")
class DIST(Objective):
    """Distillation of relations from a stronger teacher."""

    temperature: Positive = field(4.0, "the paper's tau")
    inter_weight: NonNegative = field(1.0, "the paper's beta, of the classes of a sample")
    intra_weight: NonNegative = field(1.0, "the paper's gamma, of the samples of a batch")

    requires = Requires(taps=LOGITS, allows_soft_labels=True)
    terms = ("inter", "intra")

    def compute(self, context) -> dict[str, tf.Tensor]:
        student, teacher = context.student_logits, context.teacher()
        inter = context.mean(inter_class_loss(student, teacher, self.temperature))
        weights = context.batch.get("sample_weight")
        intra = intra_class_loss(
            context.gather(student),
            context.gather(teacher),
            self.temperature,
            None if weights is None else context.gather(weights),
        )
        return {"inter": self.inter_weight * inter, "intra": self.intra_weight * intra}
