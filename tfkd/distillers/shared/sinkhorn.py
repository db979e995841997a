"""Sinkhorn's iteration: the plan of entropic optimal transport between two batches.

Marco Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", NIPS 2013, arXiv
1306.0895. Both marginals are uniform, or the same weights.

One iteration in ten works on logarithms, so that costs of any size neither over- nor underflow. The
nine after it scale the plan that it leaves, by two products of a matrix and a vector each: the same
iterates at a third of the operations. Each of them changes a scale by no more than a factor of the
batch size.
"""

from __future__ import annotations

import tensorflow as tf

_BLOCK = 10
"""Iterations from one in logarithms to the next."""


def sinkhorn_plan(
    cost: tf.Tensor, entropy_weight: float, iterations: int, share: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns ``argmin <P, C> - entropy_weight * H(P)``.

    Args:
        cost: Shape ``(batch, batch)``, float32 or float64.
        entropy_weight: Weight of the plan's entropy: the smaller, the closer to a matching.
        iterations: Number of iterations.
        share: What each row and each column of the plan sums to, ``(batch,)``, summing to 1;
            ``None`` is the same for all. It may be 0.

    Returns:
        Shape ``(batch, batch)``: columns sum to their share, rows but for what is left after the
        last iteration.
    """
    scaled = -cost / entropy_weight
    if share is None:
        share = tf.ones_like(cost[0]) / tf.cast(tf.shape(cost)[0], cost.dtype)

    def plan(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.exp(scaled + row[:, None] + column[None, :])

    def in_logarithms(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row = tf.math.log(share) - tf.reduce_logsumexp(scaled + column[None, :], axis=1)
        column = tf.math.log(share) - tf.reduce_logsumexp(scaled + row[:, None], axis=0)
        return row, column

    def block(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row, column = in_logarithms(row, column)
        kernel = plan(row, column)
        rows, columns = tf.ones_like(row), tf.ones_like(column)
        for _ in range(_BLOCK - 1):
            rows = tf.math.divide_no_nan(share, tf.linalg.matvec(kernel, columns))
            columns = tf.linalg.matvec(kernel, rows, transpose_a=True)
            columns = tf.math.divide_no_nan(share, columns)
        return row + _log(rows), column + _log(columns)

    potentials = tf.zeros_like(share), tf.math.log(share)
    for _ in range(iterations % _BLOCK):
        potentials = in_logarithms(*potentials)
    potentials = tf.while_loop(
        lambda row, column: True, block, potentials, maximum_iterations=iterations // _BLOCK
    )
    return plan(*potentials)


def _log(scale: tf.Tensor) -> tf.Tensor:
    """Returns the logarithm; 0, without gradient, for what has no share and so stays without."""
    return tf.math.log(tf.where(scale == 0, tf.ones_like(scale), scale))
