"""KD: the student matches the teacher's softened class distribution.

Geoffrey Hinton, Oriol Vinyals and Jeff Dean, "Distilling the Knowledge in a Neural Network", NIPS
2014 Deep Learning Workshop, arXiv 1503.02531, section 2.

    L = a * CE(y, softmax(z)) + b * T^2 * mean_batch KL(softmax(v / T) || softmax(z / T))

``z`` student logits, ``v`` teacher logits, ``T`` temperature. The published CIFAR-100 comparisons
use ``T = 4``, ``a = 0.1``, ``b = 0.9``; ``a`` is the distiller's ``student_loss_weight`` and ``b``
the weight of this objective. The paper itself gives no universal weights.

With ``standardize`` the logits become z-scores first: see :mod:`tfkd.distillers.shared.standardization`,
whose authors run it with ``T = 2`` and ``b = 9``.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.arguments import positive
from tfkd.core.divergences import kl_divergence
from tfkd.distillers.shared.standardization import standardized
from tfkd.errors import TfkdError


def kd_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperature: float = 4.0,
    standardize: bool = False,
) -> tf.Tensor:
    """Returns ``T^2 * KL(teacher || student)`` at a temperature, for each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        temperature: The paper's T, > 0.
        standardize: Whether logits become z-scores first.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    if standardize:
        student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
    return kl_divergence(teacher_logits, student_logits, temperature)


@register("kd")
class KD(Objective):
    """Knowledge distillation on logits.

    Args:
        temperature: The paper's T, > 0.
        standardize: Whether logits become z-scores first (logit standardisation).
        name: Name of the term.

    Raises:
        TfkdError: For a temperature that is not positive.
    """

    requires = Requires(
        taps={("student", "main"): ["logits"], ("teacher", "main"): ["logits"]},
        allows_soft_labels=True,
    )

    def __init__(
        self, temperature: float = 4.0, standardize: bool = False, name: str = "kd"
    ) -> None:
        super().__init__(name=name)
        self.temperature = positive(f"{name}: temperature", temperature)
        if not isinstance(standardize, bool):
            raise TfkdError(f"{name}: standardize: found {standardize!r}, wanted True or False")
        self.standardize = standardize

    def compute(self, context) -> tf.Tensor:
        logits = (context.student_logits, context.teacher())
        return context.mean(kd_loss(*logits, self.temperature, self.standardize))
