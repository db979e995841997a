"""SP: what resembles what in a batch is the same for the student as for its teacher.

Frederick Tung and Greg Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv
1907.09682, section 3::

    L = CE + w * mean_ij (G_t - G_s)_ij^2
    G_i = (F F^T)_i / |(F F^T)_i|

``F`` holds the features of a sample in each row, flattened, ``F F^T`` their inner products, and
each row of ``G`` has the Euclidean length 1. The mean runs over all ``B^2`` pairs of the batch of
all replicas. ``w`` is the weight of this objective.

Published for CIFAR-100 (the CRD comparison): ``w = 3000``, and the end of the last stage of both
networks. That is the map that the classifier averages in ResNets, VGGs and ShuffleNetV1; of a WRN
it is the sum before the last normalization, of MobileNetV2 and ShuffleNetV2 the map before their
last 1x1 convolution, of 160 and 464 channels. Student and teacher may have features of any shapes:
there is nothing to connect.

A sample of weight ``v`` counts as ``v`` samples: in the lengths of the rows, and with
``v_i * v_j`` in the mean (:meth:`tfkd.core.Context.mean`). Those of weight 0 have no part in it.

Departure: a row without any length (a feature of zeros) stays 0 and has no gradient; the published
code divides it by 1e-12.

Features are of any float type; similarities and losses are float32 (float64 for float64).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd import models
from tfkd.core import register
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.feature_pair import FeaturePair
from tfkd.distillers.shared.layers import described
from tfkd.distillers.shared.stage_taps import check_tap, stage_taps
from tfkd.errors import TfkdError
from tfkd.settings import field


def similarities(features: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the inner products of all samples, each row divided by its length.

    Args:
        features: Shape ``(rows, values)``.
        weights: Weight of each sample in the lengths, ``(rows,)``; ``None`` is 1 each.

    Returns:
        Shape ``(rows, rows)``; a row without length is 0 and has no gradient.
    """
    features = as_float(features)
    products = tf.matmul(features, features, transpose_b=True)
    # A row is the same at any scale; at this one, squares neither overflow nor vanish.
    largest = tf.reduce_max(tf.abs(products), axis=1, keepdims=True)
    products = tf.math.divide_no_nan(products, tf.stop_gradient(largest))
    squares = tf.square(products)
    if weights is not None:
        squares *= tf.cast(weights, squares.dtype)
    length = tf.reduce_sum(squares, axis=1, keepdims=True)
    # Where there is none, even an unused branch would give a gradient of NaN.
    scale = tf.math.rsqrt(tf.where(length > 0, length, tf.ones_like(length)))
    return tf.where(length > 0, products * scale, tf.zeros_like(products))


def sp_loss(student: tf.Tensor, teacher: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the squared difference of the similarities, for each pair of samples.

    Args:
        student: The student's features, ``(rows, values)``.
        teacher: The teacher's, ``(rows, its values)``.
        weights: Weight of each sample, ``(rows,)``; ``None`` is 1 each.

    Returns:
        Shape ``(rows, rows)``.
    """
    return tf.square(similarities(teacher, weights) - similarities(student, weights))


@register("sp")
class SP(FeaturePair):
    """Similarity-preserving distillation; the batch is that of all replicas."""

    student_tap: str | None = field(
        None, "feature of the student, of any shape; none: its last stage"
    )
    teacher_tap: str | None = field(
        None, "feature of the teacher, of any shape; none: its last stage"
    )

    _last_stages: tuple[str | None, str | None] = (None, None)

    @property
    def pair(self) -> tuple[str, str]:
        own, theirs = self._last_stages
        return self.student_tap or own, self.teacher_tap or theirs

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        if teachers:  # The distiller tells of what is missing.
            self._last_stages = (
                self._last_stage(student, self.student_tap, "student_tap"),
                self._last_stage(teachers[0], self.teacher_tap, "teacher_tap"),
            )

    def _last_stage(self, network: models.Network, named: str | None, setting: str) -> str | None:
        """Returns the tap of a network where none is named, and otherwise checks that one."""
        if named is None:
            return stage_taps(network, self.name)[-1]
        check_tap(network, named, self.name, setting)
        return None

    def check_feature(self, network: str, tap: str, shape: Sequence[int | None]) -> None:
        if len(shape) < 2:
            raise TfkdError(
                f"{self.name}: found {network} tap {tap!r} of shape {described(shape)}, wanted a "
                f"feature with values for each sample ({network}_tap=...)"
            )

    def compute(self, context) -> tf.Tensor:
        student, teacher, weights = self.whole_batch(context)
        return context.mean(sp_loss(student, teacher, weights), gathered=True, axes=2)
