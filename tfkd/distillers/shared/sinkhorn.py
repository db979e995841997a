"""Sinkhorn's iteration: the plan of entropic optimal transport between two batches.

Marco Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", NIPS 2013, arXiv
1306.0895, with both marginals uniform. In the log domain: no size of costs over- or underflows.
"""

from __future__ import annotations

import tensorflow as tf


def sinkhorn_plan(cost: tf.Tensor, entropy_weight: float, iterations: int) -> tf.Tensor:
    """Returns ``argmin <P, C> - entropy_weight * H(P)``.

    Args:
        cost: Shape ``(rows, columns)``, float32 or float64.
        entropy_weight: Weight of the plan's entropy: the smaller, the closer to a matching.
        iterations: Number of iterations.

    Returns:
        Shape ``(rows, columns)``: columns sum to ``1 / columns``, rows, but for what is left after
        the last iteration, to ``1 / rows``.
    """
    scaled = -cost / entropy_weight
    rows, columns = (tf.cast(size, cost.dtype) for size in tf.unstack(tf.shape(cost)))

    def iterate(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row = -tf.math.log(rows) - tf.reduce_logsumexp(scaled + column[None, :], axis=1)
        column = -tf.math.log(columns) - tf.reduce_logsumexp(scaled + row[:, None], axis=0)
        return row, column

    row, column = tf.while_loop(
        lambda row, column: True,
        iterate,
        (tf.zeros_like(cost[:, 0]), tf.zeros_like(cost[0])),
        maximum_iterations=iterations,
    )
    return tf.exp(scaled + row[:, None] + column[None, :])
