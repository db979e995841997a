"""PKKD: an adder network learns from a convolutional twin that is trained on the same batches.

Yixing Xu, Chang Xu, Xinghao Chen, Wei Zhang, Chunjing Xu and Yunhe Wang, "Kernel Based Progressive
Distillation for Adder Neural Networks", NeurIPS 2020, arXiv 2009.13044. Algorithm 1, by batch::

    L       = beta * L_mid + L_blend                                updates the student
    L_ce    = H(y_c, y)                                             updates the teacher
    L_blend = H(y_a, y) + alpha * H(y_a, y_c)                       equation 4
    L_mid   = sum_m mean((rho_a(g(Y_a^m)) - rho_c(h(Y_c^m)))^2)     equations 11 to 13

``a`` is the student (adder layers), ``c`` the teacher (convolutions), ``y`` logits or label, ``H``
softmax cross-entropy, ``Y^m`` the raw output of a matched layer before its normalization, ``g`` and
``h`` the kernels of :mod:`tfkd.distillers.pkkd.kernels`, ``rho`` a linear map over the channels.
Where ``alpha`` and ``beta`` are equal, as in the paper, the weight of the method stands for the
two. Published: 400 epochs on CIFAR (150 on ImageNet), batches of 256, rate 0.1 on a cosine for both
networks, alpha = beta the best of 0.1, 0.5, 1, 5, 10.

**Reconstruction.** No code was published. As published: Algorithm 1, the schedule, the grid, the
positions of kernel and linear map. From second hand: the form of the kernels and of equation 4.
Choices made here, each of which is a setting:

- ``tau = 2 sigma^2`` is learned by its logarithm, one for each layer, from the fan-in of the adder
  layer on (smaller ones leave no gradient). That of the convolutions is fixed at 4 root mean
  squares of the layer's outputs in the batch: their size is arbitrary where a normalization
  follows, and this makes the exponents of both kinds about equally wide. In the first ten steps of
  an adder ResNet-20 L_mid was then 2 on average, beside a label loss of 2.5; with 2 root mean
  squares it was 140, with a fixed ``tau = 2`` (``relative_tau=False``) 1000: the exponential of a
  few large outputs is all.
- ``rho`` is a 1x1 convolution with bias, at first the identity. The student's alone is learned:
  were both, zero maps would be the best. With ``teacher_rho`` both are, and standardized channels
  are compared.
- Layers: see :mod:`tfkd.distillers.pkkd.positions`. Loss terms are means over the batch, ``L_mid``
  also over places and channels, summed over the layers.
- Temperature 1 in the soft term; any other also multiplies it by its square, as in KD.
- ``kernel="same"`` gives both sides the student's temperatures (without a gradient on the teacher's
  side), ``"none"`` compares raw outputs.

The decay of weights must leave ``tau`` alone: ``train.optimizer.decay_exclude = ("*/log_tau",)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core import Objective, Requires, register
from tfkd.core.divergences import as_float, cross_entropy, soft_cross_entropy
from tfkd.core.step.replicas import sum_over_replicas
from tfkd.distillers.pkkd.distiller import PKKDDistiller
from tfkd.distillers.pkkd.kernels import (
    kernel_response,
    root_mean_square,
    standardized_channels,
)
from tfkd.distillers.pkkd.positions import fan_in, matched_layers
from tfkd.distillers.shared.taps import LOGITS
from tfkd.errors import TfkdError
from tfkd.models.graph.inspection import shapes_agree
from tfkd.settings import NonNegative, Positive, field


def soft_loss(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Returns the paper's ``H(y_a, y_c)`` for each sample, times the squared temperature."""
    target = tf.nn.softmax(as_float(teacher_logits) / temperature)
    return temperature**2 * soft_cross_entropy(target, as_float(student_logits) / temperature)


def blend_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    soft_weight: float = 1.0,
    temperature: float = 1.0,
) -> tf.Tensor:
    """Returns the paper's L_blend (equation 4) for each sample; ``soft_weight`` is its alpha."""
    soft = soft_loss(student_logits, teacher_logits, temperature)
    return cross_entropy(labels, student_logits) + soft_weight * soft


@register("pkkd")
class PKKD(Objective):
    """Kernel-based progressive distillation; :class:`PKKDDistiller` trains the teacher as well.

    Example::

        distiller = tfkd.distillers.PKKDDistiller(teacher, student, tfkd.distillers.PKKD())
        distiller.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
        distiller.fit(images, labels, batch_size=256, epochs=10)
    """

    middle_weight: NonNegative = field(1.0, "the paper's beta, of L_mid")
    soft_weight: NonNegative = field(
        1.0, "the paper's alpha, of the cross-entropy with the teacher"
    )
    temperature: Positive = field(1.0, "softening in that cross-entropy")
    kernel: Literal["two", "same", "none"] = field("two", "one for each network, for both, or none")
    rho: bool = field(True, "whether a linear map follows the student's kernel")
    teacher_rho: bool = field(False, "the teacher's too; both sides are then standardized")
    progressive: bool = field(True, "whether the teacher trains beside the student")
    student_tau: Positive | None = field(None, "first 2 sigma_a^2; none: fan-in of each layer")
    teacher_tau: Positive = field(4.0, "2 sigma_c^2")
    relative_tau: bool = field(True, "whether that counts in root mean squares of the outputs")
    learn_tau: bool = field(True, "whether the student's is learned")
    positions: tuple[str, ...] = field((), "taps of the student to compare; none: found")
    teacher_positions: tuple[str, ...] = field((), "the teacher's; none: positions, or found")

    requires = Requires(taps=LOGITS, allows_soft_labels=True)
    terms = ("middle", "soft")

    def check(self) -> None:
        if self.teacher_rho and not self.rho:
            raise TfkdError(f"{self.name}: found teacher_rho=True with rho=False, wanted rho=True")

    @property
    def distiller_class(self) -> type | None:
        """The distiller that trains two networks; none where the teacher stays as it is."""
        return PKKDDistiller if self.progressive else None

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        if not teachers:
            return  # The distiller tells of what is missing.
        own = self.positions or tuple(matched_layers(student.model))
        theirs = (
            self.teacher_positions or self.positions or tuple(matched_layers(teachers[0].model))
        )
        if len(own) != len(theirs):
            raise TfkdError(
                f"{self.name}: found {len(own)} layers of the student ({own[0]} to {own[-1]}) and "
                f"{len(theirs)} of the teacher ({theirs[0]} to {theirs[-1]}), wanted equally many; "
                "name them by positions and teacher_positions"
            )
        self._fan_ins = [fan_in(student.model, name) for name in own]
        for name in theirs:
            fan_in(teachers[0].model, name)
        self._pairs = list(zip(own, theirs))
        taps = {
            ("student", "main"): ["logits", *own],
            ("teacher", "main"): ["logits", *theirs],
        }
        self.requires = dataclasses.replace(self.requires, taps=taps)

    def setup(self, spec) -> None:
        widths = [self._width(spec, *pair) for pair in self._pairs]
        if self.kernel != "none":
            first = [math.log(self.student_tau or terms) for terms in self._fan_ins]
            self.log_tau = self.add_weight(
                shape=(len(first),),
                initializer=lambda shape, dtype: tf.constant(first, dtype),
                trainable=self.learn_tau,
                dtype="float32",
                name="log_tau",
            )
        self.student_maps = [_linear_map(n, "student") for n in widths] if self.rho else []
        self.teacher_maps = [_linear_map(n, "teacher") for n in widths] if self.teacher_rho else []

    def _width(self, spec, own: str, theirs: str) -> int:
        """Returns the channels of a pair of layers, whose outputs must be alike."""
        student = spec.shapes[("student", "main")][own]
        teacher = spec.shapes[("teacher", "main")][theirs]
        if not shapes_agree(student, teacher):
            raise TfkdError(
                f"{self.name}: found {own} of the student with shape {student[1:]} beside {theirs} "
                f"of the teacher with {teacher[1:]}, wanted equal ones"
            )
        return student[-1]

    def compute(self, context) -> dict[str, tf.Tensor]:
        middle = [
            context.mean(tf.math.squared_difference(*self._compared(context, number)))
            for number in range(len(self._pairs))
        ]
        soft = soft_loss(context.student_logits, context.teacher(), self.temperature)
        return {
            "middle": self.middle_weight * tf.add_n(middle),
            "soft": self.soft_weight * context.mean(soft),
        }

    def _compared(self, context, number: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the paper's y_a and y_c of a pair, ``(batch, height, width, channels)`` each."""
        own, theirs = self._pairs[number]
        student, teacher = as_float(context.student(own)), as_float(context.teacher(theirs))
        filler = context.batch.get("filler")
        rows = None if filler is None else tf.logical_not(tf.cast(filler, tf.bool))
        if self.kernel != "none":
            log_tau = tf.convert_to_tensor(self.log_tau)[number]
            if self.kernel == "same":
                teacher_log_tau = tf.stop_gradient(log_tau)
            else:
                teacher_log_tau = tf.constant(math.log(self.teacher_tau), log_tau.dtype)
                if self.relative_tau:
                    size = root_mean_square(teacher, rows, sum_over_replicas)
                    teacher_log_tau += tf.math.log(size)
            student = kernel_response(student, log_tau)
            teacher = kernel_response(teacher, teacher_log_tau)
        if self.rho:
            student = self.student_maps[number](student)
        if self.teacher_rho:
            teacher = self.teacher_maps[number](teacher)
            student, teacher = (
                standardized_channels(each, rows, sum_over_replicas) for each in (student, teacher)
            )
        return student, teacher


def _linear_map(channels: int, side: str) -> keras.layers.Layer:
    """Returns a 1x1 convolution with bias, at first the identity, in float32."""
    layer = keras.layers.Dense(
        channels, kernel_initializer="identity", dtype="float32", name=f"{side}_rho"
    )
    layer.build((None, None, None, channels))
    return layer
