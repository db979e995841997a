"""MLD: two views of each image, compared at several temperatures on three levels.

Ying Jin, Jiaqi Wang and Dahua Lin, "Multi-Level Logit Distillation", CVPR 2023, pages 24276-24285
(no arXiv version).

For each view (weak, strong) and temperature ``T`` of {4, 3, 5, 2, 6}, with ``P = softmax(z / T)``
and ``Q = softmax(v / T)``, ``z`` student logits and ``v`` teacher logits, B images and C classes:

    instance = T^2 * mean_batch KL(Q || P)
    batch    = || Q Q' - P P' ||_F^2 / B        (what resembles what in the batch)
    class    = || Q' Q - P' P ||_F^2 / C        (which classes go together)

Variant ``clean``, which is how we read the paper:

    L = a * (CE_weak + CE_strong) + b * sum over views and T of (instance + batch + class)

Variant ``code`` (default), what the published code computes: the masks that should select samples
and classes multiply scalars that are already reduced, and so become two factors, ``m`` (the share
of samples whose weak teacher confidence is not above the batch's median) and ``n`` (the share of
classes whose weak teacher mass is not above the median of the classes), each near 1/2; the strong
view's instance level stops after the third temperature and repeats the weak view's from there on;
the strong view's batch and class levels are computed and thrown away.

    L = a * (CE_weak + CE_strong) + b * (m * sum_T instance_weak
        + sum_{T in first three} instance_strong + sum_{T in the others} instance_weak
        + m * sum_T batch_weak + n * sum_T class_weak)

In both, the label losses of the two views are summed, not averaged. ``a`` and ``b`` are 0.1 and 0.9
for CIFAR-100, 0.5 and 0.5 with 1 as first temperature for ImageNet. The published CIFAR-100 runs
use learning rate 0.025 (0.01 for the long ones) and 240 epochs, 480 or 960 for some pairs: longer
than those of other methods. The weak view is crop and flip, the strong one crop, flip and
RandAugment(2, 10). With ``standardize`` the instance level sees z-scores, as in
:mod:`tfkd.distillers.shared.standardization`, whose authors leave masks and other levels on the
logits themselves; ``deviation`` is the variant of these z-scores, whatever that of the method.

Choices: batch and class levels are formed on the batch of all replicas. A ``sample_weight`` counts
for label and instance level and for the rows of the batch level; the class level describes the
batch as it is.

Logits are ``(batch, classes)``, those of the whole batch for batch and class level; results are
float32 (float64 for float64 logits).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd.core import Objective, Requires, Terms, register
from tfkd.core.divergences import as_float, cross_entropy
from tfkd.distillers.shared.standardization import Variant, check_variant, standardized
from tfkd.errors import TfkdError
from tfkd.settings import NonNegative, Positive, field

TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)
"""The published temperatures, in the order that variant ``code`` depends on."""

STRONG_TEMPERATURES = 3
"""How many of them the published code applies to the strong view's instance level."""


def log_probabilities(logits: tf.Tensor, temperatures: Sequence[float]) -> tf.Tensor:
    """Returns ``log softmax(logits / T)``, ``(temperatures, batch, classes)``."""
    logits = as_float(logits)
    return tf.nn.log_softmax(logits / tf.constant(temperatures, logits.dtype)[:, None, None])


def instance_level(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperatures: Sequence[float] = TEMPERATURES,
    factors: tf.Tensor | Sequence[float] | None = None,
    standardize: bool = False,
    deviation: Variant = "clean",
) -> tf.Tensor:
    """Returns ``sum_T factor_T * T^2 * KL(teacher || student)`` for each sample.

    There is a factor for each temperature; ``None`` is 1 each. ``standardize`` compares z-scores,
    by one of the two deviations.
    """
    if standardize:
        student_logits = standardized(student_logits, variant=deviation)
        teacher_logits = standardized(teacher_logits, variant=deviation)
    teacher_log = log_probabilities(teacher_logits, temperatures)
    student_log = log_probabilities(student_logits, temperatures)
    divergence = tf.reduce_sum(tf.exp(teacher_log) * (teacher_log - student_log), axis=-1)
    scale = tf.constant(temperatures, divergence.dtype) ** 2
    if factors is not None:
        scale *= tf.cast(factors, divergence.dtype)
    return tf.tensordot(scale, divergence, 1)


def batch_level(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperatures: Sequence[float] = TEMPERATURES,
) -> tf.Tensor:
    """Returns the sum of each row of ``sum_T (Q Q' - P P')^2``; their mean is the batch level."""
    teacher = tf.exp(log_probabilities(teacher_logits, temperatures))
    student = tf.exp(log_probabilities(student_logits, temperatures))
    difference = tf.matmul(teacher, teacher, transpose_b=True)
    difference -= tf.matmul(student, student, transpose_b=True)
    return tf.reduce_sum(tf.square(difference), axis=[0, 2])


def class_level(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperatures: Sequence[float] = TEMPERATURES,
) -> tf.Tensor:
    """Returns ``sum_T || Q' Q - P' P ||_F^2 / C``, a scalar."""
    teacher = tf.exp(log_probabilities(teacher_logits, temperatures))
    student = tf.exp(log_probabilities(student_logits, temperatures))
    difference = tf.matmul(teacher, teacher, transpose_a=True)
    difference -= tf.matmul(student, student, transpose_a=True)
    classes = tf.cast(tf.shape(student)[-1], student.dtype)
    return tf.reduce_sum(tf.square(difference)) / classes


def mask_shares(teacher_logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns ``m`` and ``n``, to which the published code's masks come down.

    Args:
        teacher_logits: Logits of the weak view, of the whole batch.

    Returns:
        The share of samples whose highest probability is not above the batch's median, and the
        share of classes whose summed probability is not above the median of the classes; scalars
        without gradient.
    """
    teacher = tf.stop_gradient(tf.nn.softmax(as_float(teacher_logits)))
    return (
        _share_below_median(tf.reduce_max(teacher, axis=-1)),
        _share_below_median(tf.reduce_sum(teacher, axis=0)),
    )


def _share_below_median(values: tf.Tensor) -> tf.Tensor:
    # An even number of values has its median half-way between the middle two: not above it is what
    # is not above the lower of them.
    median = tf.sort(values)[(tf.size(values) - 1) // 2]
    return tf.reduce_mean(tf.cast(values <= median, values.dtype))


@register("mld")
class MLD(Objective):
    """Multi-level logit distillation on a weak and a strong view, with its own label term.

    The label losses of both views are part of the loss: ``student_loss_weight`` does not enter. The
    main view is the weak one.
    """

    temperatures: tuple[Positive, ...] = field(TEMPERATURES, "T of each term; code needs the order")
    label_weight: NonNegative = field(0.1, "a, of the label losses of both views")
    distillation_weight: NonNegative = field(0.9, "b, of the three levels")
    variant: Variant = field("code", "as the published code computes, or clean: as the paper says")
    standardize: bool = field(False, "whether the instance level sees z-scores")
    deviation: Variant = field("clean", "that of the z-scores: by C, or code: by C - 1")

    terms = ("label", "instance", "batch", "class")
    replaces_label_loss = True
    requires = Requires(
        taps={
            (network, view): ["logits"]
            for network in ("student", "teacher")
            for view in ("main", "strong")
        }
    )

    def check(self) -> None:
        if not self.temperatures:
            raise TfkdError(f"{self.name}: temperatures: found (), wanted a list of numbers > 0")
        check_variant(self.name, self.standardize, self.deviation, setting="deviation")

    def compute(self, context) -> Terms:
        views = {
            view: (context.student("logits", view), context.teacher("logits", view))
            for view in ("main", "strong")
        }
        label = context.mean(
            tf.add_n([cross_entropy(context.labels, student) for student, _ in views.values()])
        )
        formed = self._code if self.variant == "code" else self._clean
        losses = {
            name: self.distillation_weight * value for name, value in formed(context, views).items()
        }
        return Terms({"label": self.label_weight * label, **losses})

    def _instance(self, student, teacher, factors=None) -> tf.Tensor:
        further = (factors, self.standardize, self.deviation)
        return instance_level(student, teacher, self.temperatures, *further)

    def _clean(self, context, views) -> dict[str, tf.Tensor]:
        whole = [(context.gather(s), context.gather(t)) for s, t in views.values()]
        instance = [self._instance(*view) for view in views.values()]
        batch = [batch_level(s, t, self.temperatures) for s, t in whole]
        return {
            "instance": context.mean(tf.add_n(instance)),
            "batch": context.mean(tf.add_n(batch), gathered=True),
            "class": tf.add_n([class_level(s, t, self.temperatures) for s, t in whole]),
        }

    def _code(self, context, views) -> dict[str, tf.Tensor]:
        weak, strong = views["main"], views["strong"]
        whole = context.gather(weak[0]), context.gather(weak[1])
        samples, classes = mask_shares(whole[1])
        on_strong = [float(each < STRONG_TEMPERATURES) for each in range(len(self.temperatures))]
        on_weak = samples + 1.0 - tf.constant(on_strong, samples.dtype)
        instance = self._instance(*weak, on_weak) + self._instance(*strong, on_strong)
        batch = context.mean(batch_level(*whole, self.temperatures), gathered=True)
        return {
            "instance": context.mean(instance),
            "batch": samples * batch,
            "class": classes * class_level(*whole, self.temperatures),
        }
