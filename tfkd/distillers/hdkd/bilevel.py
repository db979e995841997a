"""The derivative of a loss after a step of gradient descent by the weights of that step.

With losses ``L_k`` of parameters ``theta``, weights ``g`` and a loss ``V`` of other samples::

    theta'(g) = theta - eta * sum_k g_k grad L_k(theta)
    h_k = dV/dg_k = -eta * <grad V(theta'), grad L_k(theta)>

which is exact, because ``theta'`` is linear in ``g``: no second derivative of ``L_k`` in ``theta``
enters. All ``h_k`` come from one further pass, whatever their number: ``sum_k g_k grad L_k`` is
formed by a backward pass, which is linear in ``g``, and differentiated by ``g`` in the direction
``grad V`` by going back through that pass. (A forward-mode derivative gives the same numbers on one
device; on several TensorFlow's is silently wrong behind an all-reduce.)

Source: the one-step bilevel scheme of Wang and Li, "Harmonized Dense Knowledge Distillation
Training for Multi-Exit Architectures", AAAI 2021; the closed form is elementary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfkd.core.step.replicas import replica_count, sums_over_replicas


def hypergradient(
    tape: tf.GradientTape,
    losses: tf.Tensor,
    weights: tf.Tensor,
    variables: Sequence,
    rate: tf.Tensor | float,
    slopes_at: Callable[[list[tf.Tensor]], Sequence[tf.Tensor]],
    scale: tf.Tensor | float = 1.0,
) -> tf.Tensor:
    """Returns ``h``, shape ``(losses,)``, equal on every replica.

    Args:
        tape: A persistent tape that has recorded how the losses come of the variables.
        losses: The ``L``, ``(losses,)``; on replicas such that their mean over replicas counts.
        weights: The ``g``, likewise; no variable.
        variables: The parts of ``theta``.
        rate: The ``eta``.
        slopes_at: Returns ``grad V`` at the values of ``theta'``; on replicas, that of all images.
        scale: A loss scale, which keeps the gradient of the step in low precision from vanishing.
            The way back through that pass needs none: it takes the direction of ``grad V`` with
            the norm 1, however small ``grad V`` is.
    """
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(weights)
        with tape:
            total = tf.tensordot(weights, losses, axes=1) * (scale / replica_count())
        own = tape.gradient(total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    gradients = [each / scale for each in sums_over_replicas(own)]
    moved = [variable - rate * each for variable, each in zip(variables, gradients, strict=True)]
    upper = slopes_at(moved)
    norm = tf.linalg.global_norm(upper)
    direction = [tf.math.divide_no_nan(each, norm) for each in upper]
    slopes = outer.gradient(own, weights, output_gradients=direction)
    (slopes,) = sums_over_replicas([slopes])
    return -rate * norm * slopes / scale
