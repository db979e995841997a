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

In both, the label losses of the two views are summed, not averaged. ``a`` is ``label_weight``,
``b`` ``distillation_weight``; for CIFAR-100 0.1 and 0.9, for ImageNet 0.5 and 0.5 with 1 as first
temperature. The published CIFAR-100 runs use learning rate 0.025 (0.01 for the long ones) and 240
epochs, 480 or 960 for some pairs: longer than those of other methods. The weak view is crop and
flip, the strong one crop, flip and RandAugment(2, 10). With ``standardize`` the instance level sees
z-scores, as in :mod:`tfkd.distillers.shared.standardization`, whose authors leave masks and other levels
on the logits themselves.

Choices: batch and class levels are formed on the batch of all replicas. A ``sample_weight`` counts
for label and instance level and for the rows of the batch level; the class level describes the
batch as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd.core import Objective, Requires, Terms, register
from tfkd.core.arguments import non_negative, positive
from tfkd.core.divergences import as_float, cross_entropy
from tfkd.distillers.shared.standardization import standardized
from tfkd.errors import TfkdError, unknown

TEMPERATURES = (4.0, 3.0, 5.0, 2.0, 6.0)
"""The published temperatures, in the order that variant ``code`` depends on."""

STRONG_TEMPERATURES = 3
"""How many of them the published code applies to the strong view's instance level."""

VARIANTS = ("code", "clean")


def log_probabilities(logits: tf.Tensor, temperatures: Sequence[float]) -> tf.Tensor:
    """Returns ``log softmax(logits / T)`` for each temperature.

    Args:
        logits: Shape ``(batch, classes)``.
        temperatures: Numbers > 0.

    Returns:
        Shape ``(temperatures, batch, classes)``, float32 (float64 for float64 logits).
    """
    logits = as_float(logits)
    return tf.nn.log_softmax(logits / tf.constant(temperatures, logits.dtype)[:, None, None])


def instance_level(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperatures: Sequence[float] = TEMPERATURES,
    factors: tf.Tensor | Sequence[float] | None = None,
    standardize: bool = False,
) -> tf.Tensor:
    """Returns ``sum_T factor_T * T^2 * KL(teacher || student)`` for each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        temperatures: Numbers > 0.
        factors: A factor for each temperature; ``None`` is 1 each.
        standardize: Whether logits become z-scores first.

    Returns:
        Shape ``(batch,)``.
    """
    if standardize:
        student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
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
    """Returns each row of ``sum_T (Q Q' - P P')^2``, summed; their mean is the batch level.

    Args:
        student_logits: Shape ``(batch, classes)``, the whole batch.
        teacher_logits: Shape ``(batch, classes)``, the whole batch.
        temperatures: Numbers > 0.

    Returns:
        Shape ``(batch,)``.
    """
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
    """Returns ``sum_T || Q' Q - P' P ||_F^2 / C``.

    Args:
        student_logits: Shape ``(batch, classes)``, the whole batch.
        teacher_logits: Shape ``(batch, classes)``, the whole batch.
        temperatures: Numbers > 0.

    Returns:
        A scalar.
    """
    teacher = tf.exp(log_probabilities(teacher_logits, temperatures))
    student = tf.exp(log_probabilities(student_logits, temperatures))
    difference = tf.matmul(teacher, teacher, transpose_a=True)
    difference -= tf.matmul(student, student, transpose_a=True)
    classes = tf.cast(tf.shape(student)[-1], student.dtype)
    return tf.reduce_sum(tf.square(difference)) / classes


def mask_shares(teacher_logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the two factors that the published code's masks come down to.

    Args:
        teacher_logits: Logits of the weak view, ``(batch, classes)``, the whole batch.

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

    The label losses of both views are part of the loss, so that the distiller's
    ``student_loss_weight`` does not enter. The main view is the weak one.

    Args:
        temperatures: The paper's list of T, each > 0; the order matters for variant ``code``.
        label_weight: Weight of the label losses of both views, >= 0.
        distillation_weight: Weight of the three levels, >= 0.
        variant: ``"code"``, what the published code computes, or ``"clean"``, what the paper says.
        standardize: Whether the instance level sees z-scores (logit standardisation).
        name: Name of the objective.

    Raises:
        TfkdError: For an unknown variant, no or wrong temperatures, a negative weight.
    """

    terms = ("label", "instance", "batch", "class")
    replaces_label_loss = True
    requires = Requires(
        taps={
            (network, view): ["logits"]
            for network in ("student", "teacher")
            for view in ("main", "strong")
        }
    )

    def __init__(
        self,
        temperatures: Sequence[float] = TEMPERATURES,
        label_weight: float = 0.1,
        distillation_weight: float = 0.9,
        variant: str = "code",
        standardize: bool = False,
        name: str = "mld",
    ) -> None:
        super().__init__(name=name)
        if variant not in VARIANTS:
            raise unknown("variant of mld", variant, VARIANTS)
        if not isinstance(temperatures, Sequence) or not temperatures:
            raise TfkdError(
                f"{name}: temperatures: found {temperatures!r}, wanted a list of numbers > 0"
            )
        what = f"{name}: temperatures"
        self.temperatures = tuple(positive(what, temperature) for temperature in temperatures)
        self.label_weight = non_negative(f"{name}: label_weight", label_weight)
        what = f"{name}: distillation_weight"
        self.distillation_weight = non_negative(what, distillation_weight)
        if not isinstance(standardize, bool):
            raise TfkdError(f"{name}: standardize: found {standardize!r}, wanted True or False")
        self.standardize = standardize
        self.variant = variant

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
        return instance_level(student, teacher, self.temperatures, factors, self.standardize)

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
