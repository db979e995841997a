"""The published normalization of the filters' gradient, once over all replicas."""

from __future__ import annotations

import tensorflow as tf

from tfkd.errors import TfkdError

_SMALLEST_NORM = 1e-12


def with_normalized_gradient(filters: tf.Tensor, eta: float) -> tf.Tensor:
    """Returns the filters unchanged; the gradient that flows back through them is normalized.

    ``g = eta * sqrt(n) * G / max(||G||, 1e-12)`` with the n entries of the layer's whole gradient
    G, so the root mean square of g is ``eta``. Under N replicas G is the sum of their gradients,
    and each replica gets ``g / N``, of which the optimizer's sum over replicas makes g. A gradient
    of zero stays zero.

    Source: Chen et al., "AdderNet", CVPR 2020, https://arxiv.org/abs/1912.13200, equations 12 and
    13, and the authors' code, which divides by 5.

    Args:
        filters: The filters of one layer.
        eta: 0.2 in the published networks.

    Raises:
        TfkdError: The normalized gradient is differentiated again.
    """

    @tf.custom_gradient
    def scaled(gradient):
        context = tf.distribute.get_replica_context()
        # In the scope of a strategy, outside of its replicas, there is no context: one whole batch.
        replicas = 1 if context is None else context.num_replicas_in_sync
        if replicas > 1:
            gradient = context.all_reduce(tf.distribute.ReduceOp.SUM, gradient)
        norm = tf.sqrt(tf.reduce_sum(tf.square(gradient)))
        factor = eta * tf.sqrt(tf.cast(tf.size(gradient), gradient.dtype)) / replicas
        return gradient * (factor / tf.maximum(norm, _SMALLEST_NORM)), _refuse

    @tf.custom_gradient
    def identity(value):
        return tf.identity(value), scaled

    return identity(filters)


def _refuse(*_):
    raise TfkdError(
        "second derivative through the gradient of an adder layer: found eta, which normalizes it, "
        "wanted eta=None"
    )
