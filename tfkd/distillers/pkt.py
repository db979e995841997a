"""PKT: whom a sample resembles, as a probability, is the same for the student as for its teacher.

Nikolaos Passalis and Anastasios Tefas, "Learning Deep Representations with Probabilistic Knowledge
Transfer", ECCV 2018, arXiv 1803.10837, section 3, with the cosine kernel::

    L = CE + w * mean_ij p_ij * log((p_ij + 1e-7) / (q_ij + 1e-7))
    p_ij = c_ij / sum_k c_ik,   c_ij = (cos(f_i, f_j) + 1) / 2

``p`` is formed of the teacher's features ``f``, ``q`` of the student's; lengths in the cosine have
1e-7 added. A sample counts as one of its own neighbors, and the mean runs over all ``B^2`` pairs of
the batch of all replicas: both as in the published code. ``w`` is the weight of this objective.

Published for CIFAR-100 (the CRD comparison): ``w = 30000``, pooled features of both networks. They
may differ in width: there is nothing to connect.

A sample of weight ``v`` counts as ``v`` samples: in the sums of the rows, and with ``v_i * v_j`` in
the mean (:meth:`tfkd.core.Context.mean`). Those of weight 0 have no part in it.

Features are ``(batch, channels)`` of any float type; losses are float32 (float64 for float64).
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import register
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.feature_pair import FeaturePair

_EPSILON = 1e-7


def neighbor_probabilities(features: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the similarity of each sample to every other as a share of all its similarities.

    Args:
        features: Shape ``(rows, channels)``. One of zeros has the cosine 0 to all, and no gradient.
        weights: Weight of each neighbor in the sum of a row, ``(rows,)``; ``None`` is 1 each.

    Returns:
        Shape ``(rows, rows)``.
    """
    features = as_float(features)
    square = tf.reduce_sum(tf.square(features), axis=1, keepdims=True)
    # The root has no slope at 0, where even an unused branch would give a gradient of NaN.
    length = tf.sqrt(tf.where(square > 0, square, tf.ones_like(square)))
    unit = tf.where(square > 0, features / (length + _EPSILON), tf.zeros_like(features))
    cosine = tf.matmul(unit, unit, transpose_b=True)
    # Rounding may leave the cosine of opposites below -1.
    similarity = tf.maximum(0.5 * (cosine + 1.0), 0.0)
    counted = similarity if weights is None else similarity * tf.cast(weights, similarity.dtype)
    return tf.math.divide_no_nan(similarity, tf.reduce_sum(counted, axis=1, keepdims=True))


def pkt_loss(student: tf.Tensor, teacher: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the share of each pair of samples in ``KL(teacher || student)``.

    Args:
        student: The student's features, ``(rows, channels)``.
        teacher: The teacher's, ``(rows, its channels)``.
        weights: Weight of each sample, ``(rows,)``; ``None`` is 1 each.

    Returns:
        Shape ``(rows, rows)``, each row up to the difference of ``p`` and ``q``, which adds up to
        0: what is left of nearly equal rows would otherwise be rounding.
    """
    p, q = neighbor_probabilities(teacher, weights), neighbor_probabilities(student, weights)
    difference = p - q
    return p * tf.math.log1p(difference / (q + _EPSILON)) - difference


@register("pkt")
class PKT(FeaturePair):
    """Probabilistic knowledge transfer; the batch is that of all replicas."""

    def compute(self, context) -> tf.Tensor:
        student, teacher, weights = self.whole_batch(context)
        return context.mean(pkt_loss(student, teacher, weights), gathered=True, axes=2)
