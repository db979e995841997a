"""IPWD: samples that distillation under-represents weigh more, by inverse propensity.

Yulei Niu, Long Chen, Chang Zhou and Hanwang Zhang, "Respecting Transfer Gap in Knowledge
Distillation", NeurIPS 2022, arXiv 2210.12787.

RECONSTRUCTION: no public code was found, and the formula below follows the abstract and a summary
by others, not the paper's own text. What is uncertain is an option::

    L = a * CE(z) + CE(z_cls) + b * T^2 * mean_batch w_i * KL(q_i || p_i)
    w_i = 1 + H(Z(z_cls)_i, y_i) / H(Z(z)_i, y_i)

``z`` are the student's logits, ``z_cls`` those of an extra linear head on its pooled feature that
learns from the labels alone, ``H`` the cross-entropy with the label, ``Z`` the z-score of a row of
logits, ``p`` and ``q`` student and teacher softened by ``T``. ``w = 1 / propensity`` carries no
gradient. The head is dropped with the objective: the saved student does not hold it.

``a`` is the distiller's ``student_loss_weight``, the weight of this objective is 1. KD's ``T = 4``,
``a = 0.1`` and ``b = 0.9`` are taken over.

The uncertain choices:

- ``orientation="cls_over_kd"`` is the ratio above; ``"kd_over_cls"`` turns it round.
- ``normalize`` divides the weights by their mean over the whole batch; without it ``w >= 1``
  roughly doubles the weight of distillation.
- ``standardize=False`` leaves the z-score out. The deviation divides by the number of classes, with
  1e-7 added to it; both are ours.
- ``detach_features`` keeps the head's gradient from the student; by default it reaches it.

Shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from tfkd.core import Objective, Requires, Spec, register
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.distillers.shared.linear_head import LinearHead
from tfkd.distillers.shared.standardization import standardized
from tfkd.distillers.shared.taps import LOGITS
from tfkd.settings import NonNegative, Positive, field

Orientation = Literal["cls_over_kd", "kd_over_cls"]
_LEAST_LOSS = 1e-7


def propensity_weights(
    student_logits: tf.Tensor,
    head_logits: tf.Tensor,
    labels: tf.Tensor,
    orientation: Orientation = "cls_over_kd",
    standardize: bool = True,
) -> tf.Tensor:
    """Returns the inverse propensity of each sample, >= 1, without gradient."""
    if standardize:
        student_logits, head_logits = standardized(student_logits), standardized(head_logits)
    kd_loss = cross_entropy(labels, student_logits)
    cls_loss = cross_entropy(labels, head_logits)
    above, below = (cls_loss, kd_loss) if orientation == "cls_over_kd" else (kd_loss, cls_loss)
    return tf.stop_gradient(1.0 + above / tf.maximum(below, _LEAST_LOSS))


def ipwd_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    weights: tf.Tensor,
    temperature: float = 4.0,
) -> tf.Tensor:
    """Returns ``w_i * T^2 * KL(teacher || student)`` for each sample."""
    return weights * kl_divergence(teacher_logits, student_logits, temperature)


@register("ipwd")
class IPWD(Objective):
    """Inverse probability weighting distillation (a reconstruction; see the head of the file)."""

    temperature: Positive = field(4.0, "T, which softens both networks")
    kd_weight: NonNegative = field(0.9, "b, of the weighted distillation")
    head_weight: NonNegative = field(1.0, "weight of the extra head's label loss")
    orientation: Orientation = field("cls_over_kd", "which label loss stands above")
    standardize: bool = field(True, "whether label losses are compared on z-scores")
    normalize: bool = field(False, "whether weights are divided by their mean over the batch")
    detach_features: bool = field(False, "whether the head's gradient stops before the student")
    feature: str = field("pooled", "tap of the student that the head reads, pooled or a map")

    terms = ("head", "kd")

    @property
    def requires(self) -> Requires:
        return Requires(taps={**LOGITS, ("student", "main"): ["logits", self.feature]})

    def setup(self, spec: Spec) -> None:
        shape = spec.shapes[("student", "main")][self.feature]
        self.head = LinearHead(shape, spec.num_classes, spec.seed, name=f"{self.name}_head")

    def compute(self, context) -> dict[str, tf.Tensor]:
        feature = context.student(self.feature)
        head_logits = self.head(tf.stop_gradient(feature) if self.detach_features else feature)
        student, labels = context.student_logits, context.labels
        weights = propensity_weights(
            student, head_logits, labels, self.orientation, self.standardize
        )
        if self.normalize:
            everyone = context.gather(weights)
            weights /= tf.math.divide_no_nan(
                context.mean(everyone, gathered=True),
                context.mean(tf.ones_like(everyone), gathered=True),
            )
        loss = ipwd_loss(student, context.teacher(), weights, self.temperature)
        return {
            "head": self.head_weight * context.mean(cross_entropy(labels, head_logits)),
            "kd": self.kd_weight * context.mean(loss),
        }
