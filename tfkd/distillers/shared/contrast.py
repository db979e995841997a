"""What the embeddings of a step are compared with: one positive each, and many negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

NETWORKS = ("student", "teacher")
"""The two sides: each is compared with what is remembered of the other."""

Vectors = Mapping[str, tf.Tensor]
"""Embeddings of a batch by network, float32 ``(batch, width)``."""


@dataclass(frozen=True)
class Scores:
    """Inner products of the embeddings of one network.

    Attributes:
        positive: With the positive of each image, ``(batch,)``.
        negative: With every candidate, ``(batch, candidates)``.
        weights: How often an image takes a candidate as a negative, ``(batch, candidates)``.
    """

    positive: tf.Tensor
    negative: tf.Tensor
    weights: tf.Tensor


@dataclass(frozen=True)
class Contrast:
    """Positives and candidates of a step; none of them carries a gradient.

    Attributes:
        positives: For each network what its embeddings should resemble, ``(batch, width)``.
        candidates: For each network what its negatives are taken from, ``(candidates, width)``.
        weights: As in :class:`Scores`; rows sum to ``count``.
        count: Negatives of an image.
        total: Number of embeddings that the memory holds.
        known: Which images have any negatives, booleans ``(batch,)``; ``None`` is all.
    """

    positives: Vectors
    candidates: Vectors
    weights: tf.Tensor
    count: int
    total: int
    known: tf.Tensor | None = None

    def scores(self, network: str, vectors: tf.Tensor) -> Scores:
        """Returns the inner products of the embeddings of a network, ``(batch, width)``."""
        return Scores(
            tf.reduce_sum(vectors * self.positives[network], axis=1),
            tf.linalg.matmul(vectors, self.candidates[network], transpose_b=True),
            self.weights,
        )


def counted(context, known: tf.Tensor | None = None) -> tf.Tensor:
    """Returns which images of all replicas count: those whose sample weight is not 0.

    Args:
        context: The step.
        known: Further booleans ``(batch,)`` that must hold.

    Returns:
        Booleans ``(all rows,)``.
    """
    weights = context.batch.get("sample_weight")
    if weights is None:
        counts = tf.ones(tf.shape(context.batch["image"])[:1], tf.bool)
    else:
        counts = tf.reshape(tf.not_equal(weights, 0), [-1])
    if known is not None:
        counts = tf.logical_and(counts, known)
    return context.gather(tf.cast(counts, tf.int32)) > 0
