"""Sinkhorn's iteration: the plan of entropic optimal transport between two batches.

Marco Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", NIPS 2013, arXiv
1306.0895, with both marginals uniform.

One iteration in ten works on logarithms, so that costs of any size neither over- nor underflow. The
nine after it scale the plan that it leaves, by two products of a matrix and a vector each: the same
iterates at a third of the operations. Within them no scale exceeds ``batch ** 9``.
"""

from __future__ import annotations

import tensorflow as tf

_BLOCK = 10
"""Iterations from one in logarithms to the next."""


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
    of_row, of_column = (1.0 / tf.cast(size, cost.dtype) for size in tf.unstack(tf.shape(cost)))

    def plan(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.exp(scaled + row[:, None] + column[None, :])

    def in_logarithms(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row = tf.math.log(of_row) - tf.reduce_logsumexp(scaled + column[None, :], axis=1)
        column = tf.math.log(of_column) - tf.reduce_logsumexp(scaled + row[:, None], axis=0)
        return row, column

    def block(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row, column = in_logarithms(row, column)
        kernel = plan(row, column)
        rows, columns = tf.ones_like(row), tf.ones_like(column)
        for _ in range(_BLOCK - 1):
            rows = of_row / tf.linalg.matvec(kernel, columns)
            columns = of_column / tf.linalg.matvec(kernel, rows, transpose_a=True)
        return row + tf.math.log(rows), column + tf.math.log(columns)

    potentials = tf.zeros_like(cost[:, 0]), tf.zeros_like(cost[0])
    for _ in range(iterations % _BLOCK):
        potentials = in_logarithms(*potentials)
    potentials = tf.while_loop(
        lambda row, column: True, block, potentials, maximum_iterations=iterations // _BLOCK
    )
    return plan(*potentials)
