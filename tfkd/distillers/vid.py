"""VID: the student's stages predict the teacher's, each channel with a variance that is learned.

Sungsoo Ahn, Shell Xu Hu, Andreas Damianou, Neil D. Lawrence and Zhenwen Dai, "Variational
Information Distillation for Knowledge Transfer", CVPR 2019, arXiv 1904.05835, section 3, as the
CIFAR-100 comparison of Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR
2020, arXiv 1910.10699, runs it::

    L = sum over stages of mean_batch mean_hwc ((mu(s) - t)^2 / v_c + log v_c) / 2
    v_c = log(1 + exp(a_c)) + 1e-5

``s`` and ``t`` are the outputs of a stage of student and teacher, ``mu`` a regressor of three 1x1
convolutions without bias, with ReLUs between them and as many channels inside as the teacher has;
``a_c`` is learned for each channel and starts where ``v_c = 5``. It is the negative logarithm of a
Gaussian density but for a constant, which bounds the mutual information of the two stages from
below. The published weight is 1, beside a label loss of weight 1 and no KD. Where the maps differ
in size, the larger one is averaged to the smaller: the student's before its regressor.

Departures of that comparison from the paper, kept here: the mean over elements and not their sum;
intermediate stages alone, without a term of the logits. A departure of this file: where the numbers
of stages differ, they are paired from the deepest on; the comparison has no such pair. The stages
of a wide residual network are bare sums, as in that code.

Maps are ``(batch, height, width, channels)`` of any float type. Regressors run in the policy of the
run, the variances and the loss in float32 (float64 stays float64).
"""

from __future__ import annotations

import math
from typing import Annotated

import keras
import tensorflow as tf

from tfkd.core import Spec, register
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.adaptive_pooling import to_common_size
from tfkd.distillers.shared.layers import convolution, sequence
from tfkd.distillers.shared.stage_pairs import StagePairs
from tfkd.distillers.shared.stage_taps import channels_of_pairs
from tfkd.settings import Range, field

_LEAST_VARIANCE = 1e-5
_SEEDS_OF_A_STAGE = 3


def vid_loss(mean: tf.Tensor, target: tf.Tensor, log_scale: tf.Tensor) -> tf.Tensor:
    """Returns half of ``(mean - target)^2 / v + log v``, averaged for each sample.

    Args:
        mean: What the student predicts, ``(batch, height, width, channels)``.
        target: The teacher's maps, of the same shape.
        log_scale: The ``a_c`` of the variances ``v_c = log(1 + exp(a_c)) + 1e-5``, ``(channels,)``.

    Returns:
        Shape ``(batch,)``.
    """
    mean = as_float(mean)
    variance = tf.nn.softplus(tf.cast(log_scale, mean.dtype)) + _LEAST_VARIANCE
    squares = tf.math.squared_difference(mean, tf.cast(target, mean.dtype))
    of_channels = tf.reduce_mean(squares, axis=(1, 2))
    return 0.5 * tf.reduce_mean(of_channels / variance + tf.math.log(variance), axis=-1)


def log_scale_of(variance: float) -> float:
    """Returns the ``a_c`` at which the variance of a channel has a value above 1e-5."""
    softplus = variance - _LEAST_VARIANCE
    return softplus + math.log(-math.expm1(-softplus))


def _regressor(inputs: int, channels: int, seed: int, name: str) -> keras.Sequential:
    """Returns mu for a stage of ``inputs`` channels and a teacher's of ``channels``."""
    first, second, third = (
        convolution(width, channels, 1, seed + n, use_bias=False, name=f"{name}_conv{n}")
        for n, width in enumerate((inputs, channels, channels), start=1)
    )
    relus = [keras.layers.ReLU(name=f"{name}_relu{n}") for n in (1, 2)]
    layers = [first, relus[0], second, relus[1], third]
    return sequence(layers, (None, None, None, inputs), name=name)


@register("vid")
class VID(StagePairs):
    """Variational information distillation at the end of every stage."""

    initial_variance: Annotated[float, Range(above=_LEAST_VARIANCE)] = field(
        5.0, "variance of every channel at the start"
    )

    def setup(self, spec: Spec) -> None:
        widths = channels_of_pairs(spec, self.pairs, self.name)
        start = keras.initializers.Constant(log_scale_of(self.initial_variance))
        self.regressors, self.log_scales = [], []
        for number, (inputs, channels) in enumerate(widths):
            seed = spec.seed + _SEEDS_OF_A_STAGE * number
            self.regressors.append(
                _regressor(inputs, channels, seed, f"{self.name}_regressor{number + 1}")
            )
            self.log_scales.append(
                self.add_weight(
                    shape=(channels,),
                    initializer=start,
                    dtype="float32",
                    autocast=False,
                    name=f"log_scale{number + 1}",
                )
            )

    def compute(self, context) -> tf.Tensor:
        losses = []
        parts = zip(self.pairs, self.regressors, self.log_scales)
        for (own, theirs), regressor, log_scale in parts:
            student, teacher = to_common_size(
                context.student(own), as_float(context.teacher(theirs))
            )
            mean = regressor(student, training=context.training)
            losses.append(context.mean(vid_loss(mean, teacher, tf.convert_to_tensor(log_scale))))
        return tf.add_n(losses)
