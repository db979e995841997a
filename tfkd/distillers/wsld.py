"""WSLD: soft labels weigh less on the samples that the student knows as well as its teacher does.

Helong Zhou, Liangchen Song, Jiajie Chen, Ye Zhou, Guoli Wang, Junsong Yuan and Qian Zhang,
"Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective", ICLR
2021, arXiv 2102.00650::

    L = CE + alpha * T^2 * mean_batch w_i * (-sum_c q_c log p_c)
    w_i = 1 - exp(-CE(student_i, y_i) / (CE(teacher_i, y_i) + 1e-7))

``p = softmax(z / T)`` student, ``q = softmax(v / T)`` teacher; the two label losses in ``w`` are
taken at temperature 1 and carry no gradient. The soft term is a cross-entropy, not a divergence:
its gradient is KD's, its value also holds the teacher's entropy. ``w`` is near 1 wherever the
teacher is confident. ``alpha`` is the weight of this objective.

Published for ImageNet: ``T = 2``, ``alpha = 2.5``. For CIFAR-100 the authors' code has no settings;
``T = 4``, ``alpha = 2.25`` are those of NKD's authors. ``student_loss_weight`` is 1.

Departure: the published loop leaves the teacher's batch normalization in training mode; here the
teacher is in inference mode, as everywhere.

Shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.divergences import as_float, cross_entropy, soft_cross_entropy
from tfkd.distillers.shared.taps import LOGITS
from tfkd.settings import Positive, field

_EPSILON = 1e-7


def sample_weights(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """Returns the weight of the soft label of each sample, between 0 and 1, without gradient."""
    student_loss = cross_entropy(labels, student_logits)
    teacher_loss = cross_entropy(labels, teacher_logits)
    # Rounding can leave a label loss a little below 0, and a weight must not be negative.
    ratio = tf.maximum(student_loss / (teacher_loss + _EPSILON), 0.0)
    return tf.stop_gradient(-tf.math.expm1(-ratio))


def wsld_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 4.0,
) -> tf.Tensor:
    """Returns ``T^2 * w_i * soft cross-entropy`` for each sample."""
    student, teacher = as_float(student_logits), as_float(teacher_logits)
    soft = soft_cross_entropy(tf.nn.softmax(teacher / temperature), student / temperature)
    return temperature**2 * sample_weights(student, teacher, labels) * soft


@register("wsld")
class WSLD(Objective):
    """Weighted soft label distillation."""

    temperature: Positive = field(4.0, "the paper's T, of the soft labels alone")

    requires = Requires(taps=LOGITS)

    def compute(self, context) -> tf.Tensor:
        logits = (context.student_logits, context.teacher(), context.labels)
        return context.mean(wsld_loss(*logits, self.temperature))
