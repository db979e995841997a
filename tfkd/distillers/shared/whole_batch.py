"""Features of the batch of all replicas, for losses that compare samples with one another."""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Context
from tfkd.core.divergences import as_float


def whole_batch(
    context: Context, student_tap: str, teacher_tap: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Returns one feature of student and teacher, and the sample weights, of all replicas.

    Args:
        context: The step.
        student_tap: The student's feature, of any shape.
        teacher_tap: The teacher's.

    Returns:
        Both features ``(rows, values)`` in at least float32, and the weights ``(rows,)``, ``None``
        where the batch has none.
    """
    student, teacher = (
        context.gather(as_float(tf.reshape(feature, [tf.shape(feature)[0], -1])))
        for feature in (context.student(student_tap), context.teacher(teacher_tap))
    )
    weights = context.batch.get("sample_weight")
    if weights is not None:
        weights = context.gather(as_float(tf.reshape(weights, [-1])))
    return student, teacher, weights
