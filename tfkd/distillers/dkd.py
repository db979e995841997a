"""DKD: the softened divergence in two parts, the target class and the rest, weighed apart.

Borui Zhao, Quan Cui, Renjie Song, Yiyu Qiu and Jiajun Liang, "Decoupled Knowledge Distillation",
CVPR 2022, arXiv 2203.08679::

    L = CE + min(epoch / warmup, 1) * (alpha * TCKD + beta * NCKD)
    TCKD = T^2 * mean_batch KL([q_y, 1 - q_y] || [p_y, 1 - p_y])
    NCKD = T^2 * mean_batch KL(q^ || p^)

``p = softmax(z / T)`` student, ``q = softmax(v / T)`` teacher, ``y`` the label, ``p^`` and ``q^``
the softmax over the other classes alone. The epoch counts from 1: the first one has the factor
``1 / warmup``. Plain KD is ``TCKD + (1 - q_y) * NCKD``, sample by sample.

Published for CIFAR-100: ``T = 4``, ``alpha = 1``, ``warmup = 20``, and ``beta = 8`` in most pairs;
2 for resnet56-resnet20 and resnet110-resnet32, 6 for vgg13-vgg8, vgg13-mobilenetv2 and wrn_40_2 to
wrn_16_2 or wrn_40_1. For ImageNet ``T = 1``, ``warmup = 1``, ``beta`` 0.5 (resnet34-resnet18) or 2
(resnet50-mobilenetv1). Both weights of the distiller are 1.

Departures: the target class is left out by a mask instead of by subtracting 1000 from its logit,
and the logarithm of ``1 - p_y`` is formed from log-softmax, where the published code can take the
logarithm of 0. The values are the same wherever that code's are finite.

``standardize`` is that of :mod:`tfkd.distillers.shared.standardization`, ``variant`` its variant.
Shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.divergences import LEFT_OUT, as_float, nontarget_log_softmax, one_hot
from tfkd.distillers.shared.standardization import Variant, check_variant, standardized
from tfkd.distillers.shared.taps import LOGITS
from tfkd.settings import NonNegative, Positive, field


def dkd_terms(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 4.0,
    standardize: bool = False,
    variant: Variant = "clean",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the paper's TCKD and NCKD, of z-scores with ``standardize``."""
    target = one_hot(labels, student_logits.shape[-1])
    both = [
        standardized(each, variant=variant) if standardize else as_float(each)
        for each in (student_logits, teacher_logits)
    ]

    def divergence(log_softmax) -> tf.Tensor:
        student, teacher = (log_softmax(each / temperature, target) for each in both)
        return temperature**2 * tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1)

    return divergence(_binary_log_softmax), divergence(nontarget_log_softmax)


def dkd_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    target_weight: float = 1.0,
    nontarget_weight: float = 8.0,
    temperature: float = 4.0,
    standardize: bool = False,
    variant: Variant = "clean",
) -> tf.Tensor:
    """Returns ``alpha * TCKD + beta * NCKD``."""
    logits = (student_logits, teacher_logits, labels)
    target, nontarget = dkd_terms(*logits, temperature, standardize, variant)
    return target_weight * target + nontarget_weight * nontarget


def warmup_factor(epoch: tf.Tensor, warmup_epochs: float) -> tf.Tensor:
    """Returns ``min((epoch + 1) / warmup_epochs, 1)``, with epochs from 0; 1 without a warm-up."""
    epoch = tf.cast(epoch, tf.float32)
    return tf.minimum((epoch + 1.0) / warmup_epochs, 1.0) if warmup_epochs else tf.ones_like(epoch)


def _binary_log_softmax(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Returns ``log p_y`` and ``log(1 - p_y)``, side by side."""
    log = tf.nn.log_softmax(logits)
    of_target = tf.reduce_sum(tf.where(target, log, tf.zeros_like(log)), axis=-1)
    rest = tf.reduce_logsumexp(tf.where(target, tf.constant(LEFT_OUT, log.dtype), log), axis=-1)
    return tf.stack([of_target, rest], axis=-1)


@register("dkd")
class DKD(Objective):
    """Decoupled knowledge distillation."""

    temperature: Positive = field(4.0, "the paper's T")
    target_weight: NonNegative = field(
        1.0, "the paper's alpha, of the target class against the rest"
    )
    nontarget_weight: NonNegative = field(8.0, "the paper's beta, of the other classes")
    warmup_epochs: NonNegative = field(20.0, "epochs until both have their full weight; 0: none")
    standardize: bool = field(False, "whether logits become z-scores first")
    variant: Variant = field("clean", "their deviation by C, or code: by C - 1 as published")

    requires = Requires(taps=LOGITS)
    terms = ("target", "nontarget")

    def check(self) -> None:
        check_variant(self.name, self.standardize, self.variant)

    def compute(self, context) -> dict[str, tf.Tensor]:
        logits = (context.student_logits, context.teacher(), context.labels)
        target, nontarget = dkd_terms(*logits, self.temperature, self.standardize, self.variant)
        return {
            "target": self.target_weight * context.mean(target),
            "nontarget": self.nontarget_weight * context.mean(nontarget),
        }

    def schedule(self, epoch: tf.Tensor) -> tf.Tensor:
        return warmup_factor(epoch, self.warmup_epochs)
