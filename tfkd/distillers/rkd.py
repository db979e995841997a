"""RKD: distances between samples, and angles at them, are the same for student and teacher.

Wonpyo Park, Dongju Kim, Yan Lu and Minsu Cho, "Relational Knowledge Distillation", CVPR 2019, arXiv
1904.05068, section 3::

    L = CE + w * (25 * mean_ij h(d_ij / mean(d) of the student - the same of the teacher)
                + 50 * mean_ijk h(cos_ijk of the student - the same of the teacher))
    d_ij = |f_i - f_j|,   cos_ijk = <f_j - f_i, f_k - f_i> / (d_ij * d_ik)
    h(x) = x^2 / 2 where |x| < 1, otherwise |x| - 1/2

``f`` are the features; ``mean(d)`` is the mean of the distances that are not 0. The means run over
all ``B^2`` pairs and ``B^3`` triplets of the batch of all replicas, also those of a sample with
itself, where distance and cosine are 0, as in the published code. ``w`` is the weight of this
objective.

Published for CIFAR-100 (the CRD comparison, with the weights of the authors' code): 25 and 50,
``w = 1``, pooled features of both networks. They may differ in width: there is nothing to connect.

A sample of weight ``v`` counts as ``v`` samples: in the mean distance, and with ``v_i * v_j`` and
``v_i * v_j * v_k`` in the means (:meth:`tfkd.core.Context.mean`). Those of weight 0 have no part
in it.

Angles come from distances alone, by the law of cosines: no ``(B, B, channels)`` differences are
formed. What grows are tables of ``4 * B^3`` bytes, some eight of them at a time: about 8 MB for
B = 64 and 540 MB for B = 256, on each replica. ``angle_weight=0`` forms none.

Departure: distances that are rounding alone (the features coincide) are 0, have no gradient and do
not enter the mean; the published code sets them to 1e-6.

Features are ``(batch, channels)`` of any float type; losses are float32 (float64 for float64).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.core import register
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.feature_pair import FeaturePair
from tfkd.settings import NonNegative, field

_ROUNDING = 16
"""How many units of rounding, relative to their squares, two features may differ and coincide."""

_TABLES = 8
"""Tables of triplets that there are at a time."""


def distances(features: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean distance of each pair of samples.

    Args:
        features: Shape ``(rows, channels)``.

    Returns:
        Shape ``(rows, rows)``; 0 and without gradient where two features coincide but for rounding.
    """
    features = as_float(features)
    # Distances are the same from any origin, and least is lost to rounding from the middle.
    features -= tf.stop_gradient(tf.reduce_mean(features, axis=0))
    products = tf.matmul(features, features, transpose_b=True)
    own = tf.linalg.diag_part(products)
    both = own[:, None] + own[None, :]
    square = both - 2.0 * products
    apart = square > _ROUNDING * np.finfo(square.dtype.as_numpy_dtype).eps * both
    # The root has no slope at 0, where even an unused branch would give a gradient of NaN.
    root = tf.sqrt(tf.where(apart, square, tf.ones_like(square)))
    return tf.where(apart, root, tf.zeros_like(root))


def rkd_distance_loss(
    student: tf.Tensor, teacher: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns how much the relative distances differ, for each pair of samples.

    Args:
        student: The student's features, ``(rows, channels)``.
        teacher: The teacher's, ``(rows, its channels)``.
        weights: Weight of each sample in the mean distance, ``(rows,)``; ``None`` is 1 each.

    Returns:
        Shape ``(rows, rows)``.
    """
    return _smooth_l1(_relative_distances(student, weights) - _relative_distances(teacher, weights))


def rkd_angle_loss(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Returns how much the cosines at sample ``i`` between ``j`` and ``k`` differ.

    Args:
        student: The student's features, ``(rows, channels)``.
        teacher: The teacher's, ``(rows, its channels)``.

    Returns:
        Shape ``(rows, rows, rows)``, by ``i``, ``j`` and ``k``.
    """
    return _smooth_l1(_cosines(student) - _cosines(teacher))


def _relative_distances(features: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    found = distances(features)
    pairs = tf.ones_like(found)
    if weights is not None:
        weights = tf.cast(weights, found.dtype)
        pairs = weights[:, None] * weights[None, :]
    count = tf.reduce_sum(tf.where(found > 0, pairs, tf.zeros_like(pairs)))
    mean = tf.math.divide_no_nan(tf.reduce_sum(pairs * found), count)
    return tf.math.divide_no_nan(found, mean)


def _cosines(features: tf.Tensor) -> tf.Tensor:
    """Returns the cosines of all angles, 0 where a side has no length."""
    sides = distances(features)
    # Angles are the same at any scale; at this one, no inverse overflows.
    sides = tf.math.divide_no_nan(sides, tf.stop_gradient(tf.reduce_max(sides)))
    squares, inverse = tf.square(sides), tf.math.divide_no_nan(tf.ones_like(sides), sides)
    twice = squares[:, :, None] + squares[:, None, :] - squares[None, :, :]
    return twice * (0.5 * inverse[:, :, None] * inverse[:, None, :])


@tf.custom_gradient
def _smooth_l1(difference: tf.Tensor):
    """Returns ``x^2 / 2`` where ``|x| < 1``, otherwise ``|x| - 1/2``.

    Its slope is ``x`` within -1 and 1. Said so, it costs one table of the triplets; found from the
    formula, several.
    """
    within = tf.clip_by_value(difference, -1.0, 1.0)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return upstream * tf.clip_by_value(difference, -1.0, 1.0)

    return within * (difference - 0.5 * within), gradient


@register("rkd")
class RKD(FeaturePair):
    """Relational distillation by distances and angles; the batch is that of all replicas."""

    distance_weight: NonNegative = field(25.0, "weight of the distances of pairs")
    angle_weight: NonNegative = field(50.0, "weight of the angles of triplets; 0 forms none")

    terms = ("distance", "angle")

    def step_bytes(self, batch_size: int) -> int:
        return _TABLES * 4 * batch_size**3 if self.angle_weight else 0

    def compute(self, context) -> dict[str, tf.Tensor]:
        student, teacher, weights = self.whole_batch(context)
        pairs = rkd_distance_loss(student, teacher, weights)
        distance = context.mean(pairs, gathered=True, axes=2)
        angle = tf.zeros_like(distance)
        if self.angle_weight:
            angle = context.mean(rkd_angle_loss(student, teacher), gathered=True, axes=3)
        return {
            "distance": self.distance_weight * distance,
            "angle": self.angle_weight * angle,
        }
