"""TF-KD: a twin trained before, or a virtual teacher made of labels, in the place of a teacher.

Li Yuan, Francis E. H. Tay, Guilin Li, Tao Wang and Jiashi Feng, "Revisiting Knowledge Distillation
via Label Smoothing Regularization", CVPR 2020, arXiv 1909.11723.

Form ``self``: the teacher is the student's own architecture, trained normally before.

    L = (1 - a) * CE(y, p(1)) + a * m * T^2 * mean_{batch, classes} q(T) * (log q(T) - log p(T))

Form ``regularization``: the teacher is virtual, ``u`` = 0.99 on the label and the rest spread
evenly over the other classes.

    t = softmax(u / T)
    L = (1 - a) * CE(y, p(1)) + a * m * mean_{batch, classes} t * (log t - log p(1))

Form ``label_smoothing``: the comparison that the published code holds beside both.

    s = 1 - e on the label and e / (C - 1) elsewhere
    L = -mean_batch sum_classes s * log p(1)

``p(T)`` and ``q(T)`` softmax of student and teacher logits over T, ``C`` classes.

All three follow the published code: the divergences are divided by batch *and* classes, which the
multiplier (1 to 100) partly undoes (``m = C`` gives the usual mean over the batch); the virtual
teacher is a softmax of probabilities, the student stands beside it at temperature 1 (the paper
writes a softened one), and no T^2 is restored; label smoothing leaves nothing of ``e`` on the
label, unlike the ``e / C`` of Keras. Extension: dense labels (mixup), in which ``u`` and ``s`` are
linear.

Published for CIFAR-100 as (teacher weight, temperature, multiplier). ``self``: ResNet-18
(.95, 6, 50), the default here, DenseNet-121 (.9, 20, 50), GoogLeNet (.4, 20, 50), ResNeXt-29
(.9, 20, 100), MobileNetV2 and ShuffleNetV2 (.95, 20, 1). ``regularization``: ResNet-18
(.1, 20, 100), the default here, GoogLeNet (.1, 40, 50), MobileNetV2 (.95, 40, 1), ShuffleNetV2
(.95, 10, 1). They train for 200 epochs, learning rate 0.1 for 128 images, weight decay 5e-4, x0.2
at 60, 120 and 160, with one epoch of warm-up.

Shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from tfkd.core import Objective, Requires, Terms, register
from tfkd.core.divergences import as_float, cross_entropy, kl_divergence, soft_cross_entropy
from tfkd.distillers.shared.taps import LOGITS
from tfkd.errors import TfkdError
from tfkd.settings import Fraction, Positive, field, values_of

FORMS = {
    "self": {"teacher_weight": 0.95, "temperature": 6.0, "multiplier": 50.0},
    "regularization": {
        "teacher_weight": 0.1,
        "temperature": 20.0,
        "multiplier": 100.0,
        "correct_probability": 0.99,
    },
    "label_smoothing": {"smoothing": 0.1},
}
"""The forms, each with its hyper-parameters and their published values (ResNet-18, CIFAR-100)."""


def self_distillation(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    temperature: float = 6.0,
    multiplier: float = 50.0,
) -> tf.Tensor:
    """Returns ``m * T^2 * KL(teacher || student) / C`` for each sample."""
    scale = multiplier / student_logits.shape[-1]
    return scale * kl_divergence(teacher_logits, student_logits, temperature)


def virtual_probabilities(
    labels: tf.Tensor, classes: int, correct_probability: float, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """Returns the distribution with a given probability on the label and the rest spread evenly."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == classes != 1:
        labels = tf.cast(labels, dtype)
    else:
        labels = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes, dtype=dtype)
    other = (1.0 - correct_probability) / (classes - 1)
    return other + (correct_probability - other) * labels


def virtual_teacher_distillation(
    student_logits: tf.Tensor,
    labels: tf.Tensor,
    temperature: float = 20.0,
    multiplier: float = 100.0,
    correct_probability: float = 0.99,
) -> tf.Tensor:
    """Returns ``m * KL(softmax(u / T) || softmax(student)) / C`` for each sample.

    ``T`` softens the virtual teacher alone; ``correct_probability`` is that of the label in ``u``.
    """
    student_logits = as_float(student_logits)
    classes = student_logits.shape[-1]
    virtual = virtual_probabilities(labels, classes, correct_probability, student_logits.dtype)
    return multiplier / classes * kl_divergence(virtual / temperature, student_logits)


def smoothed_cross_entropy(
    labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.1
) -> tf.Tensor:
    """Returns the cross-entropy with ``1 - e`` on the label, ``e / (C - 1)`` on every other."""
    logits = as_float(logits)
    target = virtual_probabilities(labels, logits.shape[-1], 1.0 - smoothing, logits.dtype)
    return soft_cross_entropy(target, logits)


@register("teacher_free")
class TeacherFree(Objective):
    """Teacher-free distillation in one of its three forms, with its own label term.

    The label term is part of the loss: ``student_loss_weight`` does not enter. Settings without a
    value take the published one of their form, see :data:`FORMS`.
    """

    form: Literal["self", "regularization", "label_smoothing"] = field(
        "regularization", "self needs a teacher (the same architecture, trained before)"
    )
    teacher_weight: Fraction | None = field(None, "the paper's alpha; the label term has the rest")
    temperature: Positive | None = field(None, "the paper's T")
    multiplier: Positive | None = field(None, "the published code's factor m")
    correct_probability: Fraction | None = field(None, "that of the label in u")
    smoothing: Fraction | None = field(None, "e, which the label loses")

    replaces_label_loss = True

    @property
    def requires(self) -> Requires:
        taps = LOGITS if self.form == "self" else {("student", "main"): ["logits"]}
        return Requires(taps=taps, allows_soft_labels=True)

    def check(self) -> None:
        published = FORMS[self.form]
        for name, value in values_of(self).items():
            if value is None:
                setattr(self, name, published.get(name))
            elif name not in ("form", *published):
                raise TfkdError(
                    f"{self.name}: {name}={value!r} with form={self.form!r}, which has only "
                    f"{', '.join(published)}"
                )

    def term_names(self) -> tuple[str, ...]:
        return (self.name,) if self.form == "label_smoothing" else ("label", "distillation")

    def compute(self, context) -> Terms | tf.Tensor:
        student, labels = context.student_logits, context.labels
        if self.form == "label_smoothing":
            return context.mean(smoothed_cross_entropy(labels, student, self.smoothing))
        if self.form == "self":
            distillation = self_distillation(
                student, context.teacher(), self.temperature, self.multiplier
            )
        else:
            distillation = virtual_teacher_distillation(
                student, labels, self.temperature, self.multiplier, self.correct_probability
            )
        return Terms(
            {
                "label": (1.0 - self.teacher_weight) * context.mean(cross_entropy(labels, student)),
                "distillation": self.teacher_weight * context.mean(distillation),
            }
        )
