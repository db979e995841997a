"""DIST: the student's predictions correlate with the teacher's, by sample and by class.

Tao Huang, Shan You, Fei Wang, Chen Qian and Chang Xu, "Knowledge Distillation from A Stronger
Teacher", NeurIPS 2022, arXiv 2205.10536::

    L = CE + w * (beta * inter + gamma * intra)
    inter = tau^2 * (1 - mean_batch   rho(p_b, q_b))      (rows: the classes of one sample)
    intra = tau^2 * (1 - mean_classes rho(p_:c, q_:c))    (columns: one class over the batch)

``p = softmax(z / tau)`` student, ``q = softmax(v / tau)`` teacher, ``rho`` Pearson's correlation,
formed as ``<a, b> / (|a| |b| + 1e-8)`` of the centred vectors: the 1e-8 stands beside the product
of the norms, as published, and at ``tau = 4`` it is felt in small batches. ``tau`` is
``temperature``, ``beta`` ``inter_weight``, ``gamma`` ``intra_weight``; ``w`` is the weight of this
objective.

Published for CIFAR-100: ``tau = 4``, ``beta = gamma = 1``, ``w = 2``; for ImageNet ``tau = 1``,
``w = 2``. ``student_loss_weight`` is 1.

``intra`` couples the samples of a batch: under several replicas it is formed over all of them.
Where the batch has a ``sample_weight``, that weighs the samples in the correlation, so that rows
of weight 0 have no part in it. A batch of one sample has no correlation, and ``intra`` is
``tau^2`` without gradient.

Departure: a vector that is constant but for rounding has the correlation 0 and no gradient; the
published code correlates the rounding errors.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.arguments import non_negative, positive
from tfkd.core.divergences import as_float

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
        centred = values - tf.math.divide_no_nan(total, count)
        square = tf.reduce_sum(weights * tf.square(centred), axis=axis)
        rounding = (_ROUNDING * np.finfo(values.dtype.as_numpy_dtype).eps) ** 2
        varies = square > rounding * tf.reduce_sum(weights * tf.square(values), axis=axis)
        # The root has no slope at 0, where even an unused branch would give a gradient of NaN.
        return centred, tf.sqrt(tf.maximum(square, _LEAST_SQUARE)), varies

    first, first_norm, first_varies = moments(first)
    second, second_norm, second_varies = moments(second)
    product = tf.reduce_sum(weights * first * second, axis=axis)
    rho = product / (first_norm * second_norm + _EPSILON)
    return tf.where(tf.logical_and(first_varies, second_varies), rho, tf.zeros_like(rho))


def inter_class_loss(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float = 4.0
) -> tf.Tensor:
    """Returns ``tau^2 * (1 - rho)`` of the class probabilities of each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        temperature: The paper's tau, > 0.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    student, teacher = _softened(student_logits, teacher_logits, temperature)
    return temperature**2 * (1.0 - pearson(student, teacher, axis=1))


def intra_class_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperature: float = 4.0,
    sample_weight: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns ``tau^2 * (1 - rho)`` of each class over the batch, in the mean over classes.

    Args:
        student_logits: Shape ``(batch, classes)``: the whole batch.
        teacher_logits: Shape ``(batch, classes)``.
        temperature: The paper's tau, > 0.
        sample_weight: Weight >= 0 of each sample in the correlation, shape ``(batch,)``.

    Returns:
        A scalar, float32 (float64 for float64 logits).
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
    """Distillation of relations from a stronger teacher.

    Args:
        temperature: The paper's tau, > 0.
        inter_weight: The paper's beta, of the correlation over the classes of a sample.
        intra_weight: The paper's gamma, of the correlation over the samples of a batch.
        name: Name of the objective.

    Raises:
        TfkdError: For a temperature that is not positive or a negative weight.
    """

    requires = Requires(
        taps={("student", "main"): ["logits"], ("teacher", "main"): ["logits"]},
        allows_soft_labels=True,
    )
    terms = ("inter", "intra")

    def __init__(
        self,
        temperature: float = 4.0,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        name: str = "dist",
    ) -> None:
        super().__init__(name=name)
        self.temperature = positive(f"{name}: temperature", temperature)
        self.inter_weight = non_negative(f"{name}: inter_weight", inter_weight)
        self.intra_weight = non_negative(f"{name}: intra_weight", intra_weight)

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
