"""The published normalisation of the filters' gradient, once over all replicas."""

from __future__ import annotations

import tensorflow as tf

from tfkd.errors import TfkdError

_SMALLEST_NORM = 1e-12


def with_normalized_gradient(filters: tf.Tensor, eta: float) -> tf.Tensor:
    """Returns the filters as they are, through which their gradient comes back normalised.

    ``g = eta * sqrt(n) * G / max(||G||, 1e-12)`` with the n entries of the layer's whole gradient G,
    so that the root mean square of g is ``eta``. Under N replicas G is the sum of theirs, and each
    gets ``g / N``, which the optimizer's sum over replicas makes g again. A gradient of zero stays
    zero.

    Source: Chen et al., "AdderNet", CVPR 2020, https://arxiv.org/abs/1912.13200, equations 12 and
    13, and the authors' code, which divides by 5.

    Args:
        filters: The filters of one layer.
        eta: 0.2 in the published networks.

    Raises:
        TfkdError: Where the normalised gradient is differentiated again.
    """

    @tf.custom_gradient
    def scaled(gradient):
        context = tf.distribute.get_replica_context()
        # There is no replica context while a strategy's scope is open: one whole batch, then.
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
        "second derivative through the gradient of an adder layer: found eta, which normalises it, "
        "wanted eta=None"
    )
