"""FitNets: a stage of the student, through a regressor, predicts a stage of the teacher, its hint.

Adriana Romero, Nicolas Ballas, Samira Ebrahimi Kahou, Antoine Chassang, Carlo Gatta and Yoshua
Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550, sections 2.2 and 2.3.

- ``form="joint"``, as the CIFAR-100 comparison of Tian, Krishnan and Isola, "Contrastive
  Representation Distillation", ICLR 2020, arXiv 1910.10699, runs it: one stage of training,

      L = CE + 100 * mean (r(s) - t)^2

  with ``s`` and ``t`` the outputs of ``stage2`` and ``r`` a convolution, batch normalization and
  ReLU. The 100 is the published weight of this objective, whose own loss is the mean over samples
  and elements; there is no KD.
- ``form="two_stage"``, the paper's, a RECONSTRUCTION. Stage ``hint`` trains ``r`` and the
  student's layers up to ``s``, and nothing else, on ``100 * mean (r(s) - t)^2 / 2``. Stage
  ``student`` drops ``r`` and trains the whole student on ``CE + lambda * T^2 * KL(teacher ||
  student)``, ``T = 3``, where ``lambda`` falls linearly, from 4 in its first epoch to 1 in its
  last. The paper's ``r`` has no batch normalization. Where a distiller runs without stages, both
  losses are formed.

The convolution of ``r`` is chosen by height and width of ``s`` and ``t``: 3x3 of stride 2, padded
by 1, where ``s`` is twice as large; a transposed one, 4x4 of stride 2, where ``t`` is; otherwise an
unpadded one whose filters have what ``s`` is larger by, plus 1 (1x1 for equal sizes). It has a
bias. A smaller ``s`` of another ratio cannot be bridged, and is refused. ``stage2`` of all thirteen
pairs of that comparison can be.

``r`` ends in a ReLU, so ``t`` should not be negative: the stages of a wide residual network are
bare sums, and that comparison takes them all the same.

Departures of the second form: the paper sums the squares over all elements, here they are averaged
and weighed as in the first form, which differs by a factor on the learning rate of the stage; the
paper's KD carries no ``T^2``. Choices: 30 epochs for the first stage, as that comparison gives to
other methods of two stages (the paper stops by validation, after at most 500); the recipe of the
run in both stages.

Maps are ``(batch, height, width, channels)`` of any float type; the regressor runs in the policy of
the run, losses are float32 (float64 stays float64).
"""

from __future__ import annotations

import functools
from typing import Literal

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core import Requires, Spec, Stage, Terms, register
from tfkd.core.divergences import as_float
from tfkd.distillers.kd import kd_loss
from tfkd.distillers.shared.layers import (
    Shape,
    check_map,
    convolution,
    mismatch,
    normalization,
    sequence,
)
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.errors import TfkdError
from tfkd.settings import NonNegative, Positive, field, values_of

HINT_STAGE, STUDENT_STAGE = "hint", "student"
"""Names of the two stages."""

FORMS = {
    "joint": {"normalize": True},
    "two_stage": {
        "normalize": False,
        "hint_weight": 100.0,
        "temperature": 3.0,
        "initial_kd_weight": 4.0,
        "final_kd_weight": 1.0,
    },
}
"""The forms, each with its hyper-parameters and their values."""


def hint_loss(regressed: tf.Tensor, hint: tf.Tensor) -> tf.Tensor:
    """Returns the mean squared difference of two maps, for each sample.

    Args:
        regressed: What the regressor makes of the student's maps, ``(batch, height, width,
            channels)``.
        hint: The teacher's maps, of the same shape.

    Returns:
        Shape ``(batch,)``.
    """
    squares = tf.math.squared_difference(as_float(regressed), as_float(hint))
    return tf.reduce_mean(squares, axis=(1, 2, 3))


def kd_weight(
    epoch: tf.Tensor | float,
    epochs: tf.Tensor | float,
    initial: float = 4.0,
    final: float = 1.0,
) -> tf.Tensor:
    """Returns lambda of an epoch, counted from 0: ``initial`` in the first, ``final`` in the last.

    Args:
        epoch: The epoch.
        epochs: Their number.
        initial: The weight in the first epoch.
        final: The weight in the last one, and after it.
    """
    last = tf.maximum(tf.cast(epochs, tf.float32) - 1.0, 1.0)
    share = tf.minimum(tf.cast(epoch, tf.float32) / last, 1.0)
    return initial + (final - initial) * share


def bridge(student: Shape, teacher: Shape, seed: int, name: str) -> keras.layers.Layer | None:
    """Returns the convolution from maps of one shape to another, or ``None`` where none leads.

    Args:
        student: Shape of the maps that it takes, batch axis first.
        teacher: Shape of those that it makes.
        seed: Seed of the first weights; that of the bias is one more.
        name: Name of the layer.
    """
    (height, width, channels), (rows, columns, filters) = student[1:], teacher[1:]
    if None in (height, width, rows, columns):
        return None
    if (height, width) == (2 * rows, 2 * columns):
        return convolution(channels, filters, 3, seed, stride=2, name=name)
    if (2 * height, 2 * width) == (rows, columns):
        layer = keras.layers.Conv2DTranspose(
            filters, 4, strides=2, padding="same", name=name, **_torch_starts(16 * filters, seed)
        )
    elif height >= rows and width >= columns:
        size = (1 + height - rows, 1 + width - columns)
        starts = _torch_starts(channels * size[0] * size[1], seed)
        layer = keras.layers.Conv2D(filters, size, padding="valid", name=name, **starts)
    else:
        return None
    layer.build(student)
    return layer


def _torch_starts(fan_in: int, seed: int) -> dict[str, keras.initializers.Initializer]:
    """Returns how torch starts a convolution.

    Args:
        fan_in: Inputs of one output; for a transposed convolution torch counts its outputs.
        seed: Seed of the filters; that of the bias is one more.
    """
    bound = fan_in**-0.5
    return {
        f"{each}_initializer": keras.initializers.RandomUniform(-bound, bound, seed=seed + place)
        for place, each in enumerate(("kernel", "bias"))
    }


@register("fitnets")
class FitNets(TapPair):
    """Hints from a middle stage of the teacher.

    Settings without a value take the one of their form, see :data:`FORMS`.
    """

    form: Literal["joint", "two_stage"] = field(
        "joint", "hints beside the label loss, or before it and KD (the paper's)"
    )
    student_tap: str = field("stage2", "the guided feature map of the student")
    teacher_tap: str = field("stage2", "the feature map of the teacher that is the hint")
    normalize: bool | None = field(
        None, "whether the regressor has batch normalization; none: where the form is joint"
    )
    hint_epochs: Positive = field(30.0, "two_stage: epochs of the first stage, rounded, at least 1")
    hint_weight: NonNegative | None = field(
        None, "two_stage: weight of the hints in the first stage; none: 100"
    )
    temperature: Positive | None = field(None, "two_stage: the paper's tau of KD; none: 3")
    initial_kd_weight: NonNegative | None = field(
        None, "two_stage: the paper's lambda in the first epoch of KD; none: 4"
    )
    final_kd_weight: NonNegative | None = field(
        None, "two_stage: the paper's lambda in the last epoch; none: 1"
    )

    def check(self) -> None:
        chosen = FORMS[self.form]
        for name, value in values_of(self).items():
            if value is None:
                setattr(self, name, chosen.get(name))
            elif name not in chosen and name in FORMS["two_stage"]:
                raise TfkdError(
                    f"{self.name}: {name}={value!r} with form={self.form!r}, which has one stage, "
                    "without KD, and the weight of the method; wanted form='two_stage'"
                )

    def _formed_in(self, stage: str | None) -> tuple[bool, bool]:
        """Returns whether a stage forms the loss of the hint, and that of KD."""
        if self.form == "joint":
            return True, False
        return stage != STUDENT_STAGE, stage != HINT_STAGE

    @property
    def requires(self) -> Requires:
        return self.requires_in(None)

    def requires_in(self, stage: str | None) -> Requires:
        hint, kd = self._formed_in(stage)
        logits = ["logits"] if kd else []
        taps = {
            ("student", "main"): [*logits, *([self.student_tap] if hint else [])],
            ("teacher", "main"): [*logits, *([self.teacher_tap] if hint else [])],
        }
        tasks = Requires().tasks if kd else None
        return Requires(taps=taps, epochs=kd, allows_soft_labels=True, tasks=tasks)

    def term_names(self) -> tuple[str, ...]:
        return self.terms_in(None)

    def terms_in(self, stage: str | None) -> tuple[str, ...]:
        if self.form == "joint":
            return (self.name,)
        return tuple(name for name, formed in zip(("hint", "kd"), self._formed_in(stage)) if formed)

    def setup(self, spec: Spec) -> None:
        student = spec.shapes["student", "main"][self.student_tap]
        teacher = spec.shapes["teacher", "main"][self.teacher_tap]
        check_map(self.name, "student", self.student_tap, student)
        check_map(self.name, "teacher", self.teacher_tap, teacher)
        name = f"{self.name}_regressor"
        layer = bridge(student, teacher, spec.seed, f"{name}_conv")
        if layer is None:
            raise mismatch(
                self.name, self.student_tap, student, self.teacher_tap, teacher,
                "known sizes, the student's half the teacher's or as large or larger "
                "(student_tap, teacher_tap)",
            )  # fmt: skip
        norm = [normalization(teacher, name=f"{name}_bn")] if self.normalize else []
        relu = keras.layers.ReLU(name=f"{name}_relu")
        self.regressor = sequence([layer, *norm, relu], (None, None, None, student[3]), name=name)

    def stages(self) -> list[Stage] | None:
        if self.form == "joint":
            return None
        hints = Stage(
            HINT_STAGE,
            epochs=max(1, round(self.hint_epochs)),
            trainable=functools.cache(self._trained_by_hints),
            objectives=(self.name,),
            student_loss_weight=0.0,
            evaluate=False,
        )
        # Without a place in its losses the regressor has no gradient, and rests.
        return [hints, Stage(STUDENT_STAGE)]

    def _trained_by_hints(self, distiller) -> list[keras.Variable]:
        """Returns the variables of the student up to the guided map, and the regressor's."""
        student = distiller.network("student")
        path = student.paths([self.student_tap])[self.student_tap]
        guided = models.segment(student.model, None, path, name=f"{self.name}_guided")
        return [*guided.trainable_variables, *self.regressor.trainable_variables]

    def compute(self, context) -> Terms:
        hint, kd = self._formed_in(context.stage)
        losses, factors = [], {}
        if hint:
            regressed = self.regressor(context.student(self.student_tap), training=context.training)
            loss = context.mean(hint_loss(regressed, context.teacher(self.teacher_tap)))
            losses.append(loss if self.form == "joint" else self.hint_weight * 0.5 * loss)
        if kd:
            logits = (context.student_logits, context.teacher())
            losses.append(context.mean(kd_loss(*logits, self.temperature)))
            factors["kd"] = kd_weight(
                context.epoch, context.epochs, self.initial_kd_weight, self.final_kd_weight
            )
        return Terms(dict(zip(self.terms_in(context.stage), losses)), factors=factors)
