"""KD: the student matches the teacher's softened class distribution.

Geoffrey Hinton, Oriol Vinyals and Jeff Dean, "Distilling the Knowledge in a Neural Network", NIPS
2014 Deep Learning Workshop, arXiv 1503.02531, section 2.

    L = a * CE(y, softmax(z)) + b * T^2 * mean_batch KL(softmax(v / T) || softmax(z / T))

``z`` student logits, ``v`` teacher logits, ``T`` temperature. The published CIFAR-100 comparisons
use ``T = 4``, ``a = 0.1``, ``b = 0.9``; ``a`` is the distiller's ``student_loss_weight`` and ``b``
the weight of this objective. The paper itself gives no universal weights.

``standardize`` is that of :mod:`tfkd.distillers.shared.standardization`, whose authors run it with
``T = 2`` and ``b = 9``; ``variant`` is its variant. Shapes and types are those of
:mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.divergences import kl_divergence
from tfkd.distillers.shared.standardization import Variant, check_variant, standardized
from tfkd.distillers.shared.taps import LOGITS
from tfkd.settings import Positive, field


def kd_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperature: float = 4.0,
    standardize: bool = False,
    variant: Variant = "clean",
) -> tf.Tensor:
    """Returns ``T^2 * KL(teacher || student)``, of z-scores with ``standardize``."""
    if standardize:
        student_logits = standardized(student_logits, variant=variant)
        teacher_logits = standardized(teacher_logits, variant=variant)
    return kl_divergence(teacher_logits, student_logits, temperature)


@register("kd")
class KD(Objective):
    """Knowledge distillation on logits."""

    temperature: Positive = field(4.0, "the paper's T")
    standardize: bool = field(False, "whether logits become z-scores first")
    variant: Variant = field("clean", "their deviation by C, or code: by C - 1 as published")

    requires = Requires(taps=LOGITS, allows_soft_labels=True)

    def check(self) -> None:
        check_variant(self.name, self.standardize, self.variant)

    def compute(self, context) -> tf.Tensor:
        logits = (context.student_logits, context.teacher())
        return context.mean(kd_loss(*logits, self.temperature, self.standardize, self.variant))
