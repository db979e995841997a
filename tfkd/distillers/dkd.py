"""DKD: the softened divergence in two parts, the target class and the rest, weighed apart.

Borui Zhao, Quan Cui, Renjie Song, Yiyu Qiu and Jiajun Liang, "Decoupled Knowledge Distillation",
CVPR 2022, arXiv 2203.08679::

    L = CE + min(epoch / warmup, 1) * (alpha * TCKD + beta * NCKD)
    TCKD = T^2 * mean_batch KL([q_y, 1 - q_y] || [p_y, 1 - p_y])
    NCKD = T^2 * mean_batch KL(q^ || p^)

``p = softmax(z / T)`` student, ``q = softmax(v / T)`` teacher, ``y`` the label, ``p^`` and ``q^``
the softmax over the other classes alone. ``alpha`` is ``target_weight``, ``beta``
``nontarget_weight``, ``T`` ``temperature``, ``warmup`` ``warmup_epochs``. The epoch counts from 1,
so that the first one has the factor ``1 / warmup``; the cross-entropy has its full weight from the
start. Plain KD is ``TCKD + (1 - q_y) * NCKD``, sample by sample.

Published for CIFAR-100: ``T = 4``, ``alpha = 1``, ``warmup = 20``, and ``beta = 8`` in most pairs;
2 for resnet56-resnet20 and resnet110-resnet32, 6 for vgg13-vgg8, vgg13-mobilenetv2 and wrn_40_2 to
wrn_16_2 or wrn_40_1. For ImageNet ``T = 1``, ``warmup = 1``, ``beta`` 0.5 (resnet34-resnet18) or 2
(resnet50-mobilenetv1). Both weights of the distiller are 1.

Departures: the target class is left out by a mask instead of by subtracting 1000 from its logit,
and the logarithm of ``1 - p_y`` is formed from log-softmax, where the published code can take the
logarithm of 0. The values are the same wherever that code's are finite.

With ``standardize`` the logits become z-scores first: see :mod:`tfkd.distillers.shared.standardization`.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.arguments import non_negative, positive
from tfkd.core.divergences import LEFT_OUT, as_float, nontarget_log_softmax, one_hot
from tfkd.distillers.shared.standardization import standardized
from tfkd.errors import TfkdError


def target_divergence(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 4.0,
    standardize: bool = False,
) -> tf.Tensor:
    """Returns the paper's TCKD for each sample: target class against all others together.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        labels: Class numbers, shape ``(batch,)`` or ``(batch, 1)``.
        temperature: The paper's T, > 0.
        standardize: Whether logits become z-scores first.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    student = _softened(student_logits, temperature, standardize)
    teacher = _softened(teacher_logits, temperature, standardize)
    target = one_hot(labels, student.shape[-1])
    student_target, student_rest = _binary_log_softmax(student, target)
    teacher_target, teacher_rest = _binary_log_softmax(teacher, target)
    return temperature**2 * (
        tf.exp(teacher_target) * (teacher_target - student_target)
        + tf.exp(teacher_rest) * (teacher_rest - student_rest)
    )


def nontarget_divergence(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 4.0,
    standardize: bool = False,
) -> tf.Tensor:
    """Returns the paper's NCKD for each sample: the other classes, among themselves.

    Arguments and result are those of :func:`target_divergence`.
    """
    student = _softened(student_logits, temperature, standardize)
    teacher = _softened(teacher_logits, temperature, standardize)
    target = one_hot(labels, student.shape[-1])
    student_log = nontarget_log_softmax(student, target)
    teacher_log = nontarget_log_softmax(teacher, target)
    difference = tf.exp(teacher_log) * (teacher_log - student_log)
    return temperature**2 * tf.reduce_sum(difference, axis=-1)


def dkd_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    target_weight: float = 1.0,
    nontarget_weight: float = 8.0,
    temperature: float = 4.0,
    standardize: bool = False,
) -> tf.Tensor:
    """Returns ``target_weight * TCKD + nontarget_weight * NCKD`` for each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        labels: Class numbers, shape ``(batch,)`` or ``(batch, 1)``.
        target_weight: The paper's alpha.
        nontarget_weight: The paper's beta.
        temperature: The paper's T, > 0.
        standardize: Whether logits become z-scores first.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    arguments = (student_logits, teacher_logits, labels, temperature, standardize)
    target, nontarget = target_divergence(*arguments), nontarget_divergence(*arguments)
    return target_weight * target + nontarget_weight * nontarget


def warmup_factor(epoch: tf.Tensor, warmup_epochs: float) -> tf.Tensor:
    """Returns ``min((epoch + 1) / warmup_epochs, 1)``, and 1 without a warm-up.

    Args:
        epoch: Scalar, counted from 0.
        warmup_epochs: Epochs until the factor is 1; 0 for none.
    """
    epoch = tf.cast(epoch, tf.float32)
    return tf.minimum((epoch + 1.0) / warmup_epochs, 1.0) if warmup_epochs else tf.ones_like(epoch)


def _softened(logits: tf.Tensor, temperature: float, standardize: bool) -> tf.Tensor:
    return (standardized(logits) if standardize else as_float(logits)) / temperature


def _binary_log_softmax(logits: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the logarithms of ``p_y`` and of ``1 - p_y``, each ``(batch,)``."""
    log = tf.nn.log_softmax(logits)
    of_target = tf.reduce_sum(tf.where(target, log, tf.zeros_like(log)), axis=-1)
    rest = tf.where(target, tf.constant(LEFT_OUT, log.dtype), log)
    return of_target, tf.reduce_logsumexp(rest, axis=-1)


@register("dkd")
class DKD(Objective):
    """Decoupled knowledge distillation.

    Args:
        temperature: The paper's T, > 0.
        target_weight: The paper's alpha, of the target class against the rest.
        nontarget_weight: The paper's beta, of the other classes among themselves.
        warmup_epochs: Epochs over which both grow to their full weight; 0 for none.
        standardize: Whether logits become z-scores first (logit standardisation).
        name: Name of the objective.

    Raises:
        TfkdError: For a temperature that is not positive, a negative weight or warm-up.
    """

    requires = Requires(taps={("student", "main"): ["logits"], ("teacher", "main"): ["logits"]})
    terms = ("target", "nontarget")

    def __init__(
        self,
        temperature: float = 4.0,
        target_weight: float = 1.0,
        nontarget_weight: float = 8.0,
        warmup_epochs: float = 20.0,
        standardize: bool = False,
        name: str = "dkd",
    ) -> None:
        super().__init__(name=name)
        self.temperature = positive(f"{name}: temperature", temperature)
        self.target_weight = non_negative(f"{name}: target_weight", target_weight)
        self.nontarget_weight = non_negative(f"{name}: nontarget_weight", nontarget_weight)
        self.warmup_epochs = non_negative(f"{name}: warmup_epochs", warmup_epochs)
        if not isinstance(standardize, bool):
            raise TfkdError(f"{name}: standardize: found {standardize!r}, wanted True or False")
        self.standardize = standardize

    def compute(self, context) -> dict[str, tf.Tensor]:
        logits = (context.student_logits, context.teacher(), context.labels)
        settings = (self.temperature, self.standardize)
        target = context.mean(target_divergence(*logits, *settings))
        nontarget = context.mean(nontarget_divergence(*logits, *settings))
        return {
            "target": self.target_weight * target,
            "nontarget": self.nontarget_weight * nontarget,
        }

    def schedule(self, epoch: tf.Tensor) -> tf.Tensor:
        return warmup_factor(epoch, self.warmup_epochs)
