"""Applying a gradient: under replicas, with clipping, and only where everything is finite."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfkd.core.gathering import replica_count, sum_over_replicas

Pairs = Sequence[tuple[tf.Tensor, keras.Variable]]


def gradients_are_finite(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns whether every entry of every gradient is finite, on all replicas; a scalar bool."""
    if not gradients:
        return tf.constant(True)
    # A sum is finite unless an entry is not: one reduction for each tensor, no comparison tensors.
    total = tf.add_n([tf.cast(tf.reduce_sum(gradient), tf.float32) for gradient in gradients])
    return tf.math.is_finite(sum_over_replicas(total))


def apply_if(ok: tf.Tensor, optimizer: keras.optimizers.Optimizer, pairs: Pairs) -> None:
    """Applies gradients where ``ok`` holds.

    On one replica nothing at all is touched otherwise. Under replicas an optimizer cannot stand in a
    condition, so that a bad step applies zero gradients; no further step runs.

    Args:
        ok: Scalar bool, equal on every replica.
        optimizer: A built Keras optimizer; it sums over replicas.
        pairs: Gradients, already divided by the number of replicas, and their variables.
    """
    if not pairs:
        return
    gradients = [tf.convert_to_tensor(gradient) for gradient, _ in pairs]
    variables = [variable for _, variable in pairs]
    if replica_count() == 1:
        tf.cond(ok, lambda: _apply(optimizer, gradients, variables), lambda: tf.constant(False))
        return
    gradients = [tf.where(ok, gradient, tf.zeros_like(gradient)) for gradient in gradients]
    if _clips(optimizer):
        # Keras clips each replica's own gradient before it sums them. The clipped sum is divided
        # again, so that the optimizer's sum over replicas restores it.
        gradients = [sum_over_replicas(gradient) for gradient in gradients]
        gradients = [each / replica_count() for each in optimizer._clip_gradients(gradients)]
    optimizer.apply_gradients(list(zip(gradients, variables)))


def _apply(optimizer, gradients, variables) -> tf.Tensor:
    optimizer.apply_gradients(list(zip(gradients, variables)))
    return tf.constant(True)


def _clips(optimizer: keras.optimizers.Optimizer) -> bool:
    kinds = ("clipnorm", "global_clipnorm", "clipvalue")
    return any(getattr(optimizer, kind, None) is not None for kind in kinds)
