"""NKD: the teacher's confidence weighs the label; its other classes are normalized on their own.

Zhendong Yang, Ailing Zeng, Zhe Li, Tianke Zhang, Chun Yuan and Yu Li, "From Knowledge Distillation
to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft
Labels", ICCV 2023, arXiv 2303.13005::

    L = CE + L_t + gamma * T^2 * L_n
    L_t = -mean_batch q_y * log p_y                     (at temperature 1, whatever T is)
    L_n = -mean_batch sum_{c != y} q^_c * log p^_c      (at temperature T)

``p`` student and ``q`` teacher probabilities, ``y`` the label, ``p^`` and ``q^`` the softmax over
the other classes alone. ``L_n`` is a cross-entropy, not a divergence: a student equal to its
teacher has not 0. With dense labels ``y`` is the most probable class.

Published for CIFAR-100 (resnet34-resnet18): ``T = 3``, ``gamma = 3.5``; for ImageNet ``T = 1``,
``gamma = 1.5``. Both weights of the distiller are 1. USKD, of the same paper, has its own file.
Shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.divergences import as_float, nontarget_log_softmax, one_hot
from tfkd.distillers.shared.taps import LOGITS
from tfkd.settings import NonNegative, Positive, field


def nkd_terms(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 3.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns ``-q_y log p_y`` and ``-T^2 sum_{c != y} q^_c log p^_c``, for each sample.

    The first is at temperature 1, without gradient to the teacher.
    """
    log = tf.nn.log_softmax(as_float(student_logits))
    confidence = tf.stop_gradient(tf.nn.softmax(as_float(teacher_logits)))
    target = _target(labels, log.shape[-1])
    of_target = tf.where(target, confidence * log, tf.zeros_like(log))
    student_log = nontarget_log_softmax(as_float(student_logits) / temperature, target)
    teacher_log = nontarget_log_softmax(as_float(teacher_logits) / temperature, target)
    nontarget = tf.reduce_sum(tf.exp(teacher_log) * student_log, axis=-1)
    return -tf.reduce_sum(of_target, axis=-1), -(temperature**2) * nontarget


def nkd_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    nontarget_weight: float = 3.5,
    temperature: float = 3.0,
) -> tf.Tensor:
    """Returns ``L_t + gamma * T^2 * L_n`` for each sample."""
    target, nontarget = nkd_terms(student_logits, teacher_logits, labels, temperature)
    return target + nontarget_weight * nontarget


def _target(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == num_classes:
        labels = tf.argmax(labels, axis=-1)
    return one_hot(labels, num_classes)


@register("nkd")
class NKD(Objective):
    """Normalized knowledge distillation."""

    temperature: Positive = field(3.0, "the paper's T, of the classes that are not the target")
    nontarget_weight: NonNegative = field(3.5, "the paper's gamma, of the same classes")

    requires = Requires(taps=LOGITS, allows_soft_labels=True)
    terms = ("target", "nontarget")

    def compute(self, context) -> dict[str, tf.Tensor]:
        logits = (context.student_logits, context.teacher(), context.labels)
        target, nontarget = nkd_terms(*logits, self.temperature)
        return {
            "target": context.mean(target),
            "nontarget": self.nontarget_weight * context.mean(nontarget),
        }
