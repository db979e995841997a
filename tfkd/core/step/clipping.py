"""Clipping gradients, of replicas together and of some variables only.

A variable whose attribute ``gradient_is_normalized`` is true (the kernel of an adder layer) has a
gradient of a size of its own: it has no part in clipping, and no loss scale to be divided by.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


def is_normalized(variable: keras.Variable) -> bool:
    """Whether the gradient of a variable has a size of its own."""
    return getattr(variable, "gradient_is_normalized", False)


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the optimizer inside one that scales losses, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def scales(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer scales losses by a number that it adapts."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


class Clipping:
    """An optimizer's clipping, of all gradients that are not normalized.

    Replicas trace one step in turns, so that the optimizer's settings are read here, before any of
    them sets them aside.

    Args:
        optimizer: A built Keras optimizer.
        variables: What it updates.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: Sequence) -> None:
        self._optimizer, self._variables = optimizer, variables
        found = {kind: getattr(inner(optimizer), kind, None) for kind in _CLIPPING}
        self.settings = {kind: limit for kind, limit in found.items() if limit is not None}
        self._clipped = [number for number, each in enumerate(variables) if not is_normalized(each)]
        self.leaves_some_out = bool(self.settings) and len(self._clipped) < len(variables)

    def clip(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Clips as the optimizer does, at the true scale of the gradients."""
        if not self.settings or not self._clipped:
            return list(gradients)
        if scales(self._optimizer):
            factor = self._optimizer.dynamic_scale
        else:
            factor = getattr(self._optimizer, "loss_scale_factor", None)
        factor = tf.convert_to_tensor(1.0 if factor is None else factor, tf.float32)
        found = self._limited([gradients[number] / factor for number in self._clipped])
        clipped = {number: each * factor for number, each in zip(self._clipped, found)}
        # Inside a condition Keras wants all gradients from the same graph, hence the copies.
        return [
            clipped[number] if number in clipped else tf.identity(each)
            for number, each in enumerate(gradients)
        ]

    def _limited(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        # Keras allows one of the three.
        ((kind, limit),) = self.settings.items()
        if kind == "global_clipnorm":
            return tf.clip_by_global_norm(gradients, limit)[0]
        if kind == "clipnorm":
            return [tf.clip_by_norm(each, limit) for each in gradients]
        return [tf.clip_by_value(each, -limit, limit) for each in gradients]

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Lets the optimizer make its step, without a clipping that would take in all gradients."""
        if not self._variables:
            return
        settings_of = inner(self._optimizer)
        aside = self.settings if self.leaves_some_out else {}
        try:
            for kind in aside:
                setattr(settings_of, kind, None)
            self._optimizer.apply_gradients(list(zip(gradients, self._variables)))
        finally:
            for kind, limit in aside.items():
                setattr(settings_of, kind, limit)
