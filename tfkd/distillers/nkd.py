"""NKD: the teacher's confidence weighs the label; its other classes are normalised on their own.

Zhendong Yang, Ailing Zeng, Zhe Li, Tianke Zhang, Chun Yuan and Yu Li, "From Knowledge Distillation
to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft
Labels", ICCV 2023, arXiv 2303.13005::

    L = CE + L_t + gamma * T^2 * L_n
    L_t = -mean_batch q_y * log p_y                     (at temperature 1, whatever T is)
    L_n = -mean_batch sum_{c != y} q^_c * log p^_c      (at temperature T)

``p`` student and ``q`` teacher probabilities, ``y`` the label, ``p^`` and ``q^`` the softmax over
the other classes alone. ``gamma`` is ``nontarget_weight``, ``T`` ``temperature``. ``L_n`` is a
cross-entropy, not a divergence: a student equal to its teacher has not 0. With dense labels ``y``
is the most probable class.

Published for CIFAR-100 (resnet34-resnet18): ``T = 3``, ``gamma = 3.5``; for ImageNet ``T = 1``,
``gamma = 1.5``. Both weights of the distiller are 1. USKD, of the same paper, has its own file.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.arguments import non_negative, positive
from tfkd.core.divergences import as_float, nontarget_log_softmax, one_hot


def target_loss(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """Returns ``-q_y log p_y`` for each sample, without gradient to the teacher.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        labels: Class numbers, shape ``(batch,)`` or ``(batch, 1)``, or dense ``(batch, classes)``.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    student = tf.nn.log_softmax(as_float(student_logits))
    teacher = tf.stop_gradient(tf.nn.softmax(as_float(teacher_logits)))
    target = _target(labels, student.shape[-1])
    return -tf.reduce_sum(tf.where(target, teacher * student, tf.zeros_like(student)), axis=-1)


def nontarget_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 3.0,
) -> tf.Tensor:
    """Returns ``-T^2 sum_{c != y} q^_c log p^_c`` for each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        labels: Class numbers, shape ``(batch,)`` or ``(batch, 1)``, or dense ``(batch, classes)``.
        temperature: The paper's T (lambda in its code), > 0.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    student, teacher = as_float(student_logits), as_float(teacher_logits)
    target = _target(labels, student.shape[-1])
    student_log = nontarget_log_softmax(student / temperature, target)
    teacher_log = nontarget_log_softmax(teacher / temperature, target)
    return -(temperature**2) * tf.reduce_sum(tf.exp(teacher_log) * student_log, axis=-1)


def nkd_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    nontarget_weight: float = 3.5,
    temperature: float = 3.0,
) -> tf.Tensor:
    """Returns ``target_loss + nontarget_weight * nontarget_loss`` for each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        labels: Class numbers, shape ``(batch,)`` or ``(batch, 1)``, or dense ``(batch, classes)``.
        nontarget_weight: The paper's gamma.
        temperature: The paper's T, > 0; of the non-target part alone.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    logits = (student_logits, teacher_logits, labels)
    return target_loss(*logits) + nontarget_weight * nontarget_loss(*logits, temperature)


def _target(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == num_classes:
        labels = tf.argmax(labels, axis=-1)
    return one_hot(labels, num_classes)


@register("nkd")
class NKD(Objective):
    """Normalised knowledge distillation.

    Args:
        temperature: The paper's T, > 0.
        nontarget_weight: The paper's gamma, of the classes that are not the target.
        name: Name of the objective.

    Raises:
        TfkdError: For a temperature that is not positive or a negative weight.
    """

    requires = Requires(
        taps={("student", "main"): ["logits"], ("teacher", "main"): ["logits"]},
        allows_soft_labels=True,
    )
    terms = ("target", "nontarget")

    def __init__(
        self, temperature: float = 3.0, nontarget_weight: float = 3.5, name: str = "nkd"
    ) -> None:
        super().__init__(name=name)
        self.temperature = positive(f"{name}: temperature", temperature)
        self.nontarget_weight = non_negative(f"{name}: nontarget_weight", nontarget_weight)

    def compute(self, context) -> dict[str, tf.Tensor]:
        logits = (context.student_logits, context.teacher(), context.labels)
        nontarget = nontarget_loss(*logits, self.temperature)
        return {
            "target": context.mean(target_loss(*logits)),
            "nontarget": self.nontarget_weight * context.mean(nontarget),
        }
