"""Dense KD: every exit of a network learns from every deeper one, all alike.

The comparison called NaiveDKD in Wang and Li, "Harmonized Dense Knowledge Distillation
Training for Multi-Exit Architectures", AAAI 2021, doi 10.1609/aaai.v35i11.17225. RECONSTRUCTION:
the paper's text could not be had, only its name and that its weights are not learned::

    L = a * sum_i CE_i + b * sum_{i < n} (1 / (n - i)) * sum_{j > i} KD_ij

with ``CE_i`` and ``KD_ij`` of :mod:`tfkd.distillers.shared.exit_losses`, ``n`` exits, ``a = b =
0.5`` and ``T = 4``, those of DBT (:mod:`tfkd.distillers.dbt`). Each exit has one divergence in
total, the mean over its teachers; with ``average=False`` their sum, so that shallow exits, which
have more teachers, have more.

Logits are ``(batch, classes)``; shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.core import register
from tfkd.distillers.shared.exit_losses import exit_losses, pairs
from tfkd.distillers.shared.exits import OfExits
from tfkd.settings import NonNegative, Positive, field


def dense_weights(
    exits: int, label_weight: float = 0.5, kd_weight: float = 0.5, average: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of the exits and of the pairs, ``(exits,)`` and ``(pairs,)``.

    They are in the order of :func:`tfkd.distillers.shared.exit_losses.exit_losses`.

    Args:
        exits: The number of exits.
        label_weight: Weight of the label loss of each exit.
        kd_weight: Weight of the divergences of each exit.
        average: Whether it is shared out over the teachers of an exit.
    """
    teachers = np.array([exits - 1 - i for i, _ in pairs(exits)])
    shares = 1.0 / teachers if average else np.ones(len(teachers))
    return np.full(exits, label_weight), kd_weight * shares


@register("dense_kd")
class DenseKD(OfExits):
    """Distillation between all pairs of exits with constant weights.

    It takes the place of the label loss: ``student_loss_weight`` does not enter.
    """

    label_weight: NonNegative = field(0.5, "weight of the label loss of each exit")
    kd_weight: NonNegative = field(0.5, "weight of what each exit learns from deeper ones")
    temperature: Positive = field(4.0, "the T of all pairs")
    average: bool = field(True, "whether the divergences of an exit are averaged, or summed")

    def compute(self, context) -> dict[str, tf.Tensor]:
        losses = context.means(exit_losses(context.labels, self.logits(context), self.temperature))
        count = len(self.exits)
        weights = dense_weights(count, self.label_weight, self.kd_weight, self.average)
        losses *= tf.constant(np.concatenate(weights), losses.dtype)
        learners = np.array([i for i, _ in pairs(count)])
        distilled = tf.math.segment_sum(losses[count:], learners)
        return self.named(tf.concat([losses[:count], distilled], axis=0))
