"""Losses of ``keras.distillation`` as objectives, so that a Keras call can be carried over."""

from __future__ import annotations

import warnings

import keras
import tensorflow as tf

from tfkd.core.divergences import as_float
from tfkd.core.objective import Objective, Requires, snake_case
from tfkd.core.step.replicas import replica_count
from tfkd.errors import TfkdWarning


class KerasObjective(Objective):
    """Wraps a ``keras.distillation.DistillationLoss``.

    The loss is evaluated on the features that the distiller collected, so that no network runs
    twice. Where the batch has sample weights it is evaluated for each sample; Keras' own distiller
    ignores them. A Keras ``Loss`` object inside it divides by the number of replicas; that is
    undone, because the distiller divides the total once.

    Args:
        loss: The Keras distillation loss.
        name: Name of the term.
    """

    def __init__(self, loss: keras.distillation.DistillationLoss, name: str | None = None) -> None:
        super().__init__(name=name or snake_case(type(loss).__name__))
        self.loss = loss
        self._teacher_tap = getattr(loss, "teacher_layer_name", None) or "logits"
        self._student_tap = getattr(loss, "student_layer_name", None) or "logits"
        self.requires = Requires(
            taps={
                ("teacher", "main"): [self._teacher_tap],
                ("student", "main"): [self._student_tap],
            },
            allows_soft_labels=True,
        )
        parts = keras.tree.flatten(getattr(loss, "loss", None))
        self._undo = any(isinstance(part, keras.Loss) for part in parts)
        if isinstance(loss, keras.distillation.LogitsDistillation) and not self._undo:
            warnings.warn(
                "LogitsDistillation with a loss given by name compares raw logits (no softmax, no "
                "temperature^2); use tfkd.distillers.KD, or loss=keras.losses.KLDivergence()",
                TfkdWarning,
                stacklevel=3,
            )

    def compute(self, context) -> tf.Tensor:
        teacher = as_float(context.teacher(self._teacher_tap))
        student = as_float(context.student(self._student_tap))
        self.loss.validate_outputs(teacher, student)
        scale = replica_count() if self._undo else 1
        rows = tf.shape(student)[0]
        if context.batch.get("sample_weight") is None:
            # Spread over the rows, so that replicas of uneven size count by their images.
            values = tf.repeat(self.loss.compute_loss(teacher, student), rows)
        else:
            values = tf.vectorized_map(
                lambda pair: self.loss.compute_loss(pair[0][None], pair[1][None]),
                (teacher, student),
            )
        return scale * context.mean(values)
