"""Applying a gradient: under replicas, with clipping, and only where everything is finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfkd.core.step.clipping import Clipping, inner, is_normalized, scales
from tfkd.core.step.replicas import mirrors, replica_count, sum_over_replicas
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

    Without a strategy nothing at all is touched otherwise. Under one that mirrors variables, even
    on a single replica, an optimizer cannot stand in a condition, so that a bad step applies zero
    gradients; no further step runs.

    Args:
        ok: Scalar bool, equal on every replica.
        optimizer: A built Keras optimizer; it sums over replicas.
        pairs: Gradients, already divided by the number of replicas, and their variables.
        afterwards: Writes banks, queues and memories.
    """
    gradients = [tf.convert_to_tensor(gradient) for gradient, _ in pairs]
    variables = [variable for _, variable in pairs]
    clipping = Clipping(optimizer, variables)
    if not mirrors(tf.distribute.get_strategy()):

        def update() -> tf.Tensor:
            if clipping.leaves_some_out:
                clipping.apply(clipping.clip(gradients))
            else:
                clipping.apply(gradients)
            afterwards()
            return tf.constant(True)

        tf.cond(ok, update, lambda: tf.constant(False))
        return
    gradients = [tf.where(ok, gradient, tf.zeros_like(gradient)) for gradient in gradients]
    if clipping.settings or scales(optimizer):
        # Keras clips, and looks for overflow in, each replica's own gradient before it sums them.
        # So the sum is formed here, and divided again: the optimizer's own sum restores it.
        gradients = [sum_over_replicas(gradient) for gradient in gradients]
        gradients = [gradient / replica_count() for gradient in clipping.clip(gradients)]
    clipping.apply(gradients)
    afterwards()


def check_optimizer(
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    variables: Sequence[keras.Variable] = (),
) -> None:
    """Checks that an optimizer works under a strategy, for these variables.

    Raises:
        TfkdError: For gradient accumulation under mirrored replicas, which Keras cannot do, and for
            loss scaling of adder layers.
    """
    scaled = scales(optimizer) or getattr(inner(optimizer), "loss_scale_factor", None) is not None
    if scaled and any(map(is_normalized, variables)):
        raise TfkdError(
            f"optimizer {optimizer.name!r} for adder layers: found loss scaling, which would "
            "divide their normalized gradients, wanted none: train in float32 or mixed_bfloat16"
        )
    steps = getattr(inner(optimizer), "gradient_accumulation_steps", None)
    if steps and mirrors(strategy):
        raise TfkdError(
            f"gradient_accumulation_steps={steps} under {strategy.num_replicas_in_sync} mirrored "
            "replica(s): wanted no strategy, or None"
        )
