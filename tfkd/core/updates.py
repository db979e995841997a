"""Applying a gradient: under replicas, with clipping, and only where everything is finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfkd.core.gathering import replica_count, sum_over_replicas
from tfkd.errors import TfkdError

Pairs = Sequence[tuple[tf.Tensor, keras.Variable]]


def gradients_are_finite(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns whether every entry of every gradient is finite, on all replicas; a scalar bool."""
    if not gradients:
        return tf.constant(True)
    # A sum is finite unless an entry is not: one reduction for each tensor, no comparison tensors.
    # It is formed in float32, because float16 overflows on sums of large but finite entries.
    total = tf.add_n([tf.reduce_sum(tf.cast(gradient, tf.float32)) for gradient in gradients])
    return tf.math.is_finite(sum_over_replicas(total))


def apply_if(
    ok: tf.Tensor,
    optimizer: keras.optimizers.Optimizer,
    pairs: Pairs,
    afterwards: Callable[[], None] = lambda: None,
) -> None:
    """Applies gradients where ``ok`` holds, and then lets objectives write their state.

    On one replica nothing at all is touched otherwise. Under replicas an optimizer cannot stand in a
    condition, so that a bad step applies zero gradients; no further step runs.

    Args:
        ok: Scalar bool, equal on every replica.
        optimizer: A built Keras optimizer; it sums over replicas.
        pairs: Gradients, already divided by the number of replicas, and their variables.
        afterwards: Writes banks, queues and memories.
    """
    gradients = [tf.convert_to_tensor(gradient) for gradient, _ in pairs]
    variables = [variable for _, variable in pairs]
    if replica_count() == 1:

        def update() -> tf.Tensor:
            _apply(optimizer, gradients, variables)
            afterwards()
            return tf.constant(True)

        tf.cond(ok, update, lambda: tf.constant(False))
        return
    gradients = [tf.where(ok, gradient, tf.zeros_like(gradient)) for gradient in gradients]
    if _clips(optimizer) or _scales(optimizer):
        # Keras clips, and looks for overflow in, each replica's own gradient before it sums them.
        # So the sum is formed here, and divided again: the optimizer's own sum restores it.
        gradients = [sum_over_replicas(gradient) for gradient in gradients]
        gradients = [gradient / replica_count() for gradient in _clip(optimizer, gradients)]
    _apply(optimizer, gradients, variables)
    afterwards()


def check_optimizer(optimizer: keras.optimizers.Optimizer, replicas: int) -> None:
    """Checks that an optimizer works on this many replicas.

    Raises:
        TfkdError: For gradient accumulation under several replicas, which Keras cannot do.
    """
    steps = getattr(_inner(optimizer), "gradient_accumulation_steps", None)
    if steps and replicas > 1:
        raise TfkdError(
            f"gradient_accumulation_steps={steps} under {replicas} replicas: found several, wanted "
            "one replica, or None"
        )


def _apply(optimizer, gradients, variables) -> None:
    if variables:
        optimizer.apply_gradients(list(zip(gradients, variables)))


def _inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    return getattr(optimizer, "inner_optimizer", optimizer)


def _scales(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def _clips(optimizer: keras.optimizers.Optimizer) -> bool:
    kinds = ("clipnorm", "global_clipnorm", "clipvalue")
    return any(getattr(_inner(optimizer), kind, None) is not None for kind in kinds)


def _clip(optimizer, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Clips as the optimizer does, at the true scale of the gradients."""
    if not _clips(optimizer):
        return gradients
    inner = _inner(optimizer)
    factor = optimizer.dynamic_scale if _scales(optimizer) else inner.loss_scale_factor
    if factor is None:
        return inner._clip_gradients(gradients)
    factor = tf.convert_to_tensor(factor, tf.float32)
    return [each * factor for each in inner._clip_gradients([each / factor for each in gradients])]
