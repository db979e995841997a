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
and it is dropped with the objective. ``P`` and ``zipf`` carry no gradient. ``alpha`` is
``target_weight``, ``beta`` ``nontarget_weight``, ``mu`` ``weak_weight``.

``zipf`` orders the classes by the score ``r_c / (1 - r_y + 1e-6) + a_c / (1 - a_y + 1e-6)``,
falling, gives each the weight 1 / rank, and is normalised over the classes that are not ``y``. Two
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
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core import Objective, Requires, Spec, register
from tfkd.core.arguments import non_negative
from tfkd.core.divergences import (
    LEFT_OUT,
    as_float,
    nontarget_log_softmax,
    one_hot,
    soft_cross_entropy,
)
from tfkd.distillers.shared.linear_head import LinearHead
from tfkd.errors import TfkdError, unknown
from tfkd.models.graph.taps import tap_names

VARIANTS = ("code", "clean")
BEFORE_LAST = "before_last"
"""Stands for the stage before the last of whatever student it is."""


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


_EPSILON = 1e-6
_SMOOTHING = 0.1


def target_values(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns labels as the values of one or two targets.

    Args:
        labels: Class numbers, shape ``(batch,)`` or ``(batch, 1)``, or dense ``(batch, classes)``.
        num_classes: Number of classes.

    Returns:
        Shape ``(batch, targets, classes)``, float32 (float64 for float64 labels): one row for class
        numbers, two for dense labels, each 0 but for the value of its target.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank != 2 or labels.shape[-1] != num_classes:
        return tf.cast(one_hot(labels, num_classes), tf.float32)[:, None, :]
    values, classes = tf.math.top_k(as_float(labels), k=2)
    return values[:, :, None] * tf.one_hot(classes, num_classes, dtype=values.dtype)


def target_squares(student_logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns ``p_y^2`` of each sample and target, without gradient.

    Args:
        student_logits: Shape ``(batch, classes)``.
        labels: As in :func:`target_values`.

    Returns:
        Shape ``(batch, targets)``; 0 for a target of value 0.
    """
    probabilities = tf.nn.softmax(as_float(student_logits))
    targets = target_values(labels, probabilities.shape[-1]) > 0
    chosen = tf.where(targets, probabilities[:, None, :], tf.zeros_like(probabilities)[:, None, :])
    return tf.stop_gradient(tf.square(tf.reduce_sum(chosen, axis=-1)))


def target_loss(student_logits: tf.Tensor, labels: tf.Tensor, mean_squares: tf.Tensor) -> tf.Tensor:
    """Returns ``-P log p_y`` for each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        labels: As in :func:`target_values`.
        mean_squares: Mean of :func:`target_squares` over the whole batch, shape ``(targets,)``.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    log = tf.nn.log_softmax(as_float(student_logits))
    values = tf.cast(target_values(labels, log.shape[-1]), log.dtype)
    weights = target_squares(student_logits, labels) - tf.stop_gradient(mean_squares)
    weights = weights[:, :, None] + values
    return -tf.reduce_sum(
        tf.where(values > 0, weights * log[:, None, :], tf.zeros_like(values)), axis=(1, 2)
    )


def zipf_weights(
    student_logits: tf.Tensor, weak_logits: tf.Tensor, labels: tf.Tensor, variant: str = "code"
) -> tf.Tensor:
    """Returns the soft labels of the classes that are not the target, without gradient.

    Args:
        student_logits: Shape ``(batch, classes)``.
        weak_logits: Logits of the weak head, same shape.
        labels: As in :func:`target_values`.
        variant: One of :data:`VARIANTS`.

    Returns:
        Shape ``(batch, classes)``, 0 for targets; rows sum to 1 (to 0 where both of two
        classes are targets).
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
    """Returns ``-sum_{c != y} zipf_c log p^_c`` for each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        labels: As in :func:`target_values`.
        weights: Shape ``(batch, classes)``, as from :func:`zipf_weights`.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    student = as_float(student_logits)
    log = nontarget_log_softmax(student, _is_target(labels, student.shape[-1]))
    return -tf.reduce_sum(tf.cast(weights, log.dtype) * log, axis=-1)


def weak_loss(weak_logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of the weak head with labels smoothed by 0.1, for each sample.

    Args:
        weak_logits: Shape ``(batch, classes)``.
        labels: Class numbers, shape ``(batch,)`` or ``(batch, 1)``, or dense ``(batch, classes)``.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
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
    """Universal self-knowledge distillation.

    Args:
        target_weight: The paper's alpha.
        nontarget_weight: The paper's beta.
        weak_weight: The paper's mu, of the weak head's label loss.
        variant: ``"code"`` or ``"clean"``: how the classes are ranked.
        feature: Feature of the student that the weak head reads, pooled or a feature map; by
            default the stage before the last (``stage2`` of three, ``stage3`` of four).
        name: Name of the objective.

    Raises:
        TfkdError: For a negative weight or an unknown variant.
    """

    terms = ("target", "nontarget", "weak")

    def __init__(
        self,
        target_weight: float = 0.1,
        nontarget_weight: float = 0.1,
        weak_weight: float = 0.1,
        variant: str = "code",
        feature: str = BEFORE_LAST,
        name: str = "uskd",
    ) -> None:
        super().__init__(name=name)
        self.target_weight = non_negative(f"{name}: target_weight", target_weight)
        self.nontarget_weight = non_negative(f"{name}: nontarget_weight", nontarget_weight)
        self.weak_weight = non_negative(f"{name}: weak_weight", weak_weight)
        if variant not in VARIANTS:
            raise unknown("variant of uskd", variant, VARIANTS)
        self.variant = variant
        self.feature = feature
        taps = ["logits"] if feature == BEFORE_LAST else ["logits", feature]
        self.requires = Requires(taps={("student", "main"): taps}, allows_soft_labels=True)

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        if self.feature == BEFORE_LAST:
            self.feature = stage_before_last(student.model, self.name)
            taps = {("student", "main"): ["logits", self.feature]}
            self.requires = Requires(taps=taps, allows_soft_labels=True)

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
