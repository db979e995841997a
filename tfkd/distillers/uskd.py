"""USKD: soft labels without a teacher, from the student itself and a weak head on an earlier stage.

Zhendong Yang, Ailing Zeng, Zhe Li, Tianke Zhang, Chun Yuan and Yu Li, "From Knowledge Distillation
to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft
Labels", ICCV 2023, arXiv 2303.13005::

    L = CE + alpha * L_t + beta * L_n + mu * L_w
    L_t = -mean_batch P * log p_y,   P = p_y^2 + 1 - mean_batch p_y^2
    L_n = -mean_batch sum_{c != y} zipf_c * log p^_c
    L_w = -mean_batch sum_c u_c * log r_c,   u = 0.9 * onehot(y) + 0.1 / C

``p`` student probabilities, ``y`` the label, ``p^`` the softmax over the other classes alone,
``r`` the probabilities of the weak head: global average pooling and a linear layer on the output
of the stage before the last. The head trains with the student, its gradient reaches the student,
and it is dropped with the objective. ``P`` and ``zipf`` carry no gradient.

``zipf`` orders the classes by the score ``r_c / (1 - r_y + 1e-6) + a_c / (1 - a_y + 1e-6)``,
falling, gives each the weight 1 / rank, and is normalized over the classes that are not ``y``. Two
readings:

- ``variant="code"``, the published code: ``a`` is ``log p`` (a variable is used twice), and ``y``
  takes part in the ranking before it is left out, so that the weights depend on its rank.
- ``variant="clean"``: ``a`` is ``p``, and only the other classes are ranked.

Dense labels (mixup): the two largest labels are targets, each with its value in the place of the 1
in ``P``; terms of ``y`` are sums over both. A label of value 0 is no target; the published code
leaves out its class all the same, whichever it is. So one-hot dense labels mean what class numbers
do.

Published for CIFAR-100 (resnet18): ``alpha = beta = mu = 0.1``, weak head on 256 channels; for
ImageNet 1, 0.1 and 0.005. Both weights of the distiller are 1. ``mean_batch p_y^2`` is taken over
all replicas and weighs samples by ``sample_weight``.

Shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core import Objective, Requires, Spec, register
from tfkd.core.divergences import (
    LEFT_OUT,
    as_float,
    nontarget_log_softmax,
    one_hot,
    soft_cross_entropy,
)
from tfkd.distillers.shared.linear_head import LinearHead
from tfkd.errors import TfkdError
from tfkd.models.graph.taps import tap_names
from tfkd.settings import NonNegative, field

Variant = Literal["code", "clean"]
BEFORE_LAST = "before_last"
"""Stands for the stage before the last of whatever student it is."""

_EPSILON = 1e-6
_SMOOTHING = 0.1


def stage_before_last(student: keras.Model, name: str = "uskd") -> str:
    """Returns the tap of the stage before the last: ``stage2`` of three, ``stage3`` of four.

    Args:
        student: A network whose stages are taps ``stage1``, ``stage2`` and so on.
        name: Of the objective, for the message.

    Raises:
        TfkdError: When there are not two such stages.
    """
    stages = [each for each in tap_names(student) if re.fullmatch(r"stage\d+", each)]
    stages.sort(key=lambda each: int(each.removeprefix("stage")))
    if len(stages) < 2:
        raise TfkdError(
            f"{name}: found {len(stages)} stages in {student.name}, wanted two or more, or the "
            "name of a feature (feature=...)"
        )
    return stages[-2]


def target_values(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns labels as ``(batch, targets, classes)``: a row for each of one or two targets.

    There is one for class numbers, and two for dense labels; each is 0 but for its target's value.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank != 2 or labels.shape[-1] != num_classes:
        return tf.cast(one_hot(labels, num_classes), tf.float32)[:, None, :]
    values, classes = tf.math.top_k(as_float(labels), k=2)
    return values[:, :, None] * tf.one_hot(classes, num_classes, dtype=values.dtype)


def target_squares(student_logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns ``p_y^2`` as ``(batch, targets)``, without gradient; 0 for a target of value 0."""
    probabilities = tf.nn.softmax(as_float(student_logits))
    targets = target_values(labels, probabilities.shape[-1]) > 0
    chosen = tf.where(targets, probabilities[:, None, :], tf.zeros_like(probabilities)[:, None, :])
    return tf.stop_gradient(tf.square(tf.reduce_sum(chosen, axis=-1)))


def target_loss(student_logits: tf.Tensor, labels: tf.Tensor, mean_squares: tf.Tensor) -> tf.Tensor:
    """Returns ``-P log p_y``; ``mean_squares`` is :func:`target_squares`' mean over the batch."""
    log = tf.nn.log_softmax(as_float(student_logits))
    values = tf.cast(target_values(labels, log.shape[-1]), log.dtype)
    weights = target_squares(student_logits, labels) - tf.stop_gradient(mean_squares)
    weights = weights[:, :, None] + values
    return -tf.reduce_sum(
        tf.where(values > 0, weights * log[:, None, :], tf.zeros_like(values)), axis=(1, 2)
    )


def zipf_weights(
    student_logits: tf.Tensor, weak_logits: tf.Tensor, labels: tf.Tensor, variant: Variant = "code"
) -> tf.Tensor:
    """Returns the soft labels of the classes that are not the target, without gradient.

    They are 0 for targets; rows sum to 1, or to 0 where both of two classes are targets.
    """
    student, weak = as_float(student_logits), tf.nn.softmax(as_float(weak_logits))
    own = tf.nn.log_softmax(student) if variant == "code" else tf.nn.softmax(student)
    target = _is_target(labels, student.shape[-1])
    score = _beside_target(weak, target) + _beside_target(own, target)
    if variant == "clean":
        score = tf.where(target, tf.constant(LEFT_OUT, score.dtype), score)
    falling = tf.argsort(score, direction="DESCENDING", stable=True)
    rank = tf.argsort(falling) + 1
    zipf = tf.where(target, tf.zeros_like(score), 1.0 / tf.cast(rank, score.dtype))
    total = tf.reduce_sum(zipf, axis=-1, keepdims=True)
    return tf.stop_gradient(tf.math.divide_no_nan(zipf, total))


def nontarget_loss(student_logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns ``-sum_{c != y} zipf_c log p^_c``; ``weights`` come from :func:`zipf_weights`."""
    student = as_float(student_logits)
    log = nontarget_log_softmax(student, _is_target(labels, student.shape[-1]))
    return -tf.reduce_sum(tf.cast(weights, log.dtype) * log, axis=-1)


def weak_loss(weak_logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of the weak head with labels smoothed by 0.1."""
    weak, labels = as_float(weak_logits), tf.convert_to_tensor(labels)
    num_classes = weak.shape[-1]
    if labels.shape.rank != 2 or labels.shape[-1] != num_classes:
        labels = one_hot(labels, num_classes)
    smooth = (1 - _SMOOTHING) * tf.cast(labels, weak.dtype) + _SMOOTHING / num_classes
    return soft_cross_entropy(smooth, weak)


def _is_target(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    return tf.reduce_any(target_values(labels, num_classes) > 0, axis=1)


def _beside_target(values: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Returns values in units of what the target leaves, ``a_c / (1 - a_y + 1e-6)``."""
    of_target = tf.where(target, values, tf.zeros_like(values))
    return values / (1.0 - tf.reduce_sum(of_target, axis=-1, keepdims=True) + _EPSILON)


def _global_mean(context, per_sample: tf.Tensor) -> tf.Tensor:
    """Returns the weighted mean over the batch of all replicas, equal on each of them."""
    everyone = context.gather(per_sample)
    samples = context.mean(tf.ones_like(everyone), gathered=True)
    return tf.math.divide_no_nan(context.mean(everyone, gathered=True), samples)


@register("uskd")
class USKD(Objective):
    """Universal self-knowledge distillation."""

    target_weight: NonNegative = field(0.1, "the paper's alpha")
    nontarget_weight: NonNegative = field(0.1, "the paper's beta")
    weak_weight: NonNegative = field(0.1, "the paper's mu, of the weak head's label loss")
    variant: Variant = field("code", "how classes are ranked: as in the published code, or clean")
    feature: str = field(
        BEFORE_LAST, "tap that the weak head reads, pooled or a map; before_last: of that stage"
    )

    terms = ("target", "nontarget", "weak")

    @property
    def requires(self) -> Requires:
        taps = ["logits"] if self.feature == BEFORE_LAST else ["logits", self.feature]
        return Requires(taps={("student", "main"): taps}, allows_soft_labels=True)

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        if self.feature == BEFORE_LAST:
            self.feature = stage_before_last(student.model, self.name)

    def setup(self, spec: Spec) -> None:
        shape = spec.shapes[("student", "main")][self.feature]
        self.head = LinearHead(shape, spec.num_classes, spec.seed, name=f"{self.name}_head")

    def compute(self, context) -> dict[str, tf.Tensor]:
        student, labels = context.student_logits, context.labels
        weak = self.head(context.student(self.feature))
        columns = tf.unstack(target_squares(student, labels), axis=1)
        means = tf.stack([_global_mean(context, squares) for squares in columns])
        target = target_loss(student, labels, means)
        zipf = zipf_weights(student, weak, labels, self.variant)
        nontarget = context.mean(nontarget_loss(student, labels, zipf))
        return {
            "target": self.target_weight * context.mean(target),
            "nontarget": self.nontarget_weight * nontarget,
            "weak": self.weak_weight * context.mean(weak_loss(weak, labels)),
        }
