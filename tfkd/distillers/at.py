"""AT: the student looks where the teacher looks, by the strength of all channels at a position.

Sergey Zagoruyko and Nikos Komodakis, "Paying More Attention to Attention: Improving the Performance
of Convolutional Neural Networks via Attention Transfer", ICLR 2017, arXiv 1612.03928, section 3.1,
as the CIFAR-100 comparison of Tian, Krishnan and Isola, "Contrastive Representation Distillation",
ICLR 2020, arXiv 1910.10699, runs it::

    A(F)_hw = mean_c |F_hwc|^p,   Q(F) = A(F) / max(||A(F)||, 1e-12)
    L = sum over stages of mean_batch mean_hw (Q(F_student) - Q(F_teacher))^2

``F`` is the output of a stage, ``||.||`` the L2 norm over all positions of a map, ``p = 2``. The
published weight is 1000, beside a label loss of weight 1 and no KD. Where two maps differ in size,
the larger one is averaged to the smaller before ``A`` is formed.

Departures of that comparison from the paper, kept here: a mean over channels and not their sum,
which the norm makes equal; the mean of squared differences and not their root. A departure of this
file: where the numbers of stages differ, they are paired from the deepest on; the comparison has no
such pair. The stages of a wide residual network are bare sums, as in that code.

Maps are ``(batch, height, width, channels)`` of any float type; everything is formed in float32
(float64 stays float64). The method has no variables.
"""

from __future__ import annotations

from typing import Annotated

import tensorflow as tf

from tfkd.core import Spec, register
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.adaptive_pooling import to_common_size
from tfkd.distillers.shared.stage_pairs import StagePairs
from tfkd.distillers.shared.stage_taps import channels_of_pairs
from tfkd.settings import Range, field

_LEAST_NORM = 1e-12


def attention_map(maps: tf.Tensor, power: float = 2.0) -> tf.Tensor:
    """Returns where a feature map is strong, with norm 1 over all positions.

    Args:
        maps: Shape ``(batch, height, width, channels)``, of known height and width.
        power: The paper's p.

    Returns:
        Shape ``(batch, height * width)``; zeros for a map of zeros.
    """
    maps = as_float(maps)
    powers = tf.square(maps) if power == 2.0 else tf.pow(tf.abs(maps), power)
    strength = tf.reduce_mean(powers, axis=-1)
    flat = tf.reshape(strength, (-1, strength.shape[1] * strength.shape[2]))
    return tf.math.l2_normalize(flat, axis=-1, epsilon=_LEAST_NORM**2)


def at_loss(student: tf.Tensor, teacher: tf.Tensor, power: float = 2.0) -> tf.Tensor:
    """Returns the mean squared difference of two attention maps, for each sample.

    Args:
        student: Shape ``(batch, height, width, channels)``, of known height and width.
        teacher: The same, of any height, width and number of channels.
        power: The paper's p.

    Returns:
        Shape ``(batch,)``.
    """
    pooled = to_common_size(as_float(student), as_float(teacher))
    own, theirs = (attention_map(maps, power) for maps in pooled)
    return tf.reduce_mean(tf.math.squared_difference(own, theirs), axis=-1)


@register("at")
class AT(StagePairs):
    """Attention transfer at the end of every stage."""

    power: Annotated[float, Range(low=1)] = field(2.0, "the paper's p")

    def setup(self, spec: Spec) -> None:
        channels_of_pairs(spec, self.pairs, self.name)

    def compute(self, context) -> tf.Tensor:
        return tf.add_n(
            [
                context.mean(at_loss(context.student(own), context.teacher(theirs), self.power))
                for own, theirs in self.pairs
            ]
        )
