"""PKKD: an adder network learns from a convolutional twin that is trained on the same batches.

Yixing Xu, Chang Xu, Xinghao Chen, Wei Zhang, Chunjing Xu and Yunhe Wang, "Kernel Based Progressive
Distillation for Adder Neural Networks", NeurIPS 2020, arXiv 2009.13044. Algorithm 1, by batch::

    L       = beta * L_mid + L_blend                                updates the student
    L_ce    = H(y_c, y)                                             updates the teacher
    L_blend = H(y_a, y) + alpha * H(y_a, y_c)                       equation 4
    L_mid   = sum_m mean((rho_a(g(Y_a^m)) - rho_c(h(Y_c^m)))^2)     equations 11 to 13

``a`` is the student (adder layers), ``c`` the teacher (convolutions), ``y`` logits or label, ``H``
softmax cross-entropy, ``Y^m`` the raw output of a matched layer before its normalisation, ``g`` and
``h`` the kernels of :mod:`tfkd.distillers.pkkd.kernels`, ``rho`` a linear map over the channels.
``alpha`` is ``soft_weight``, ``beta`` ``middle_weight``; where both are equal, as in the paper, the
weight of the method stands for the two. Published: 400 epochs on CIFAR (150 on ImageNet), batches of
256, rate 0.1 on a cosine for both networks, alpha = beta the best of 0.1, 0.5, 1, 5, 10.

**Reconstruction.** No code was published. As published: Algorithm 1, the schedule, the grid, the
positions of kernel and linear map. From second hand: the form of the kernels and of equation 4.
Choices made here, each of which is a setting:

- ``tau = 2 sigma^2`` is learned by its logarithm, one for each layer, from the fan-in of the adder
  layer on (smaller ones leave no gradient). That of the convolutions is fixed at 4 root mean squares
  of the layer's outputs in the batch: their size is arbitrary where a normalisation follows, and this
  makes the exponents of both kinds about equally wide. In the first ten steps of an adder ResNet-20
  L_mid was then 2 on average, beside a label loss of 2.5; with 2 root mean squares it was 140, with
  a fixed ``tau = 2`` (``relative_tau=False``) 1000: the exponential of a few large outputs is all.
- ``rho`` is a 1x1 convolution with bias, at first the identity. The student's alone is learned:
  were both, zero maps would be the best. With ``teacher_rho`` both are, and standardised channels
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

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core import Objective, Requires, register
from tfkd.core.arguments import as_list, non_negative, positive
from tfkd.core.divergences import as_float, cross_entropy, soft_cross_entropy
from tfkd.core.step.replicas import sum_over_replicas
from tfkd.distillers.pkkd.distiller import PKKDDistiller
from tfkd.distillers.pkkd.kernels import (
    kernel_response,
    root_mean_square,
    standardized_channels,
)
from tfkd.distillers.pkkd.positions import fan_in, matched_layers
from tfkd.errors import TfkdError, unknown

KERNELS = ("two", "same", "none")


def soft_loss(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Returns the paper's ``H(y_a, y_c)`` for each sample, times the squared temperature.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        temperature: Softening of both, > 0.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    target = tf.nn.softmax(as_float(teacher_logits) / temperature)
    return temperature**2 * soft_cross_entropy(target, as_float(student_logits) / temperature)


def blend_loss(
    student_logits: tf.Tensor,
    teacher_logits: tf.Tensor,
    labels: tf.Tensor,
    soft_weight: float = 1.0,
    temperature: float = 1.0,
) -> tf.Tensor:
    """Returns the paper's L_blend (equation 4) for each sample.

    Args:
        student_logits: Shape ``(batch, classes)``.
        teacher_logits: Shape ``(batch, classes)``.
        labels: Class numbers, or dense labels.
        soft_weight: The paper's alpha.
        temperature: Softening in the second term, > 0.

    Returns:
        Shape ``(batch,)``, float32 (float64 for float64 logits).
    """
    soft = soft_loss(student_logits, teacher_logits, temperature)
    return cross_entropy(labels, student_logits) + soft_weight * soft


@register("pkkd")
class PKKD(Objective):
    """Kernel-based progressive distillation, in which :class:`PKKDDistiller` trains the teacher too.

    Example::

        distiller = tfkd.distillers.PKKDDistiller(teacher, student, tfkd.distillers.PKKD())
        distiller.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
        distiller.fit(images, labels, batch_size=256, epochs=10)

    Args:
        middle_weight: The paper's beta, of L_mid.
        soft_weight: The paper's alpha, of the cross-entropy against the teacher.
        temperature: Softening in that cross-entropy, > 0.
        kernel: ``"two"``: each network's own; ``"same"``: one for both; ``"none"``: raw outputs.
        rho: Whether a linear map follows the student's kernel.
        teacher_rho: Whether one is also learned on the teacher's side; both sides are then
            standardised in each channel before they are compared.
        progressive: Whether the teacher trains beside the student; ``False`` keeps a trained one as
            it is, and goes with the common ``tfkd.Distiller``.
        student_tau: First value of ``2 sigma_a^2``, > 0; ``None`` is the fan-in of each layer.
        teacher_tau: Value of ``2 sigma_c^2``, > 0.
        relative_tau: Whether that counts in root mean squares of the layer's outputs in the batch.
        learn_tau: Whether the student's is learned.
        positions: Taps of the student that are compared; ``()`` finds them.
        teacher_positions: Those of the teacher; ``()`` is ``positions``, or finds them.
        name: Name of the objective.

    Raises:
        TfkdError: For a setting out of range.
    """

    requires = Requires(
        taps={("student", "main"): ["logits"], ("teacher", "main"): ["logits"]},
        allows_soft_labels=True,
    )
    terms = ("middle", "soft")

    def __init__(
        self,
        middle_weight: float = 1.0,
        soft_weight: float = 1.0,
        temperature: float = 1.0,
        kernel: str = "two",
        rho: bool = True,
        teacher_rho: bool = False,
        progressive: bool = True,
        student_tau: float | None = None,
        teacher_tau: float = 4.0,
        relative_tau: bool = True,
        learn_tau: bool = True,
        positions: Sequence[str] = (),
        teacher_positions: Sequence[str] = (),
        name: str = "pkkd",
    ) -> None:
        super().__init__(name=name)
        self.middle_weight = non_negative(f"{name}: middle_weight", middle_weight)
        self.soft_weight = non_negative(f"{name}: soft_weight", soft_weight)
        self.temperature = positive(f"{name}: temperature", temperature)
        if kernel not in KERNELS:
            raise unknown(f"{name}: kernel", kernel, KERNELS)
        self.kernel = kernel
        flags = {
            "rho": rho,
            "teacher_rho": teacher_rho,
            "progressive": progressive,
            "learn_tau": learn_tau,
            "relative_tau": relative_tau,
        }
        for setting, value in flags.items():
            if not isinstance(value, bool):
                raise TfkdError(f"{name}: {setting}: found {value!r}, wanted True or False")
            setattr(self, setting, value)
        if teacher_rho and not rho:
            raise TfkdError(f"{name}: found teacher_rho=True with rho=False, wanted rho=True")
        self.student_tau = None
        if student_tau is not None:
            self.student_tau = positive(f"{name}: student_tau", student_tau)
        self.teacher_tau = positive(f"{name}: teacher_tau", teacher_tau)
        self.positions = _names(f"{name}: positions", positions)
        self.teacher_positions = _names(f"{name}: teacher_positions", teacher_positions)

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
        alike = all(a is None or b is None or a == b for a, b in zip(student, teacher))
        if not alike:
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
        weights = context.batch.get("sample_weight")
        # Rows of weight 0 fill the last batch of an evaluation.
        rows = None if weights is None or context.training else weights > 0
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


def _names(setting: str, given: Sequence[str]) -> tuple[str, ...]:
    names = tuple(as_list(given))
    if not all(isinstance(name, str) for name in names):
        raise TfkdError(f"{setting}: found {given!r}, wanted names of taps")
    return names


def _linear_map(channels: int, side: str) -> keras.layers.Layer:
    """Returns a 1x1 convolution with bias, at first the identity, in float32."""
    layer = keras.layers.Dense(
        channels, kernel_initializer="identity", dtype="float32", name=f"{side}_rho"
    )
    layer.build((None, None, None, channels))
    return layer
