"""The weights of HDKD: over which losses they are, where they start, and how they are kept apart.

Wang and Li, "Harmonized Dense Knowledge Distillation Training for Multi-Exit Architectures", AAAI
2021. The order of the losses is that of :mod:`tfkd.distillers.shared.exit_losses`. That the three
starts end about equal, and that the compared methods learn weights over part of the losses, is
known from a digest of the paper; the numbers are **reconstruction**.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.distillers.dense_kd import dense_weights
from tfkd.distillers.shared.exit_losses import pairs

DBT_SHARE = 0.5
"""The C of DBT: share of the divergence from the deepest exit."""


def support(form: str, exits: int) -> np.ndarray:
    """Returns the numbers of the losses that have a weight, ascending.

    Args:
        form: ``hdkd`` for all of them, ``hmsdnet`` for the label losses, ``hdbt`` for these and the
            divergences from the deepest exit.
        exits: The number of exits.
    """
    deepest = [j == exits - 1 for _, j in pairs(exits)]
    wanted = {"hdkd": np.ones(len(deepest), bool), "hdbt": np.array(deepest)}
    of_pairs = wanted.get(form, np.zeros(len(deepest), bool))
    return np.flatnonzero(np.concatenate([np.ones(exits, bool), of_pairs]))


def initial_weights(kind: str, exits: int) -> np.ndarray:
    """Returns the weights of all losses at the start, ``(exits + pairs,)``.

    Args:
        kind: ``dbt`` as DBT weighs them, 1/2 for the labels and 1/2 for the deepest exit as a
            teacher; ``deep_supervision``, 1 for the labels; ``dense``, 1/2 for the labels and 1/2
            for the mean over all teachers of an exit.
        exits: The number of exits.
    """
    if kind == "dense":
        return np.concatenate(dense_weights(exits))
    share = DBT_SHARE if kind == "dbt" else 0.0
    of_pairs = [share if j == exits - 1 else 0.0 for _, j in pairs(exits)]
    return np.array([1.0 - share] * exits + of_pairs)


def restricted(weights: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns the chosen ones of some weights, scaled so that their sum stays."""
    return weights[chosen] * (weights.sum() / weights[chosen].sum())


def projected(weights: tf.Tensor, total: tf.Tensor | float | None) -> tf.Tensor:
    """Returns weights without negative ones, ``max(g, 0)``, scaled to a sum.

    Without that, the size of the loss would be learned as well, which acts as a learning rate.

    Args:
        weights: Shape ``(losses,)``.
        total: The sum; ``None`` leaves it as it comes.
    """
    kept = tf.maximum(weights, 0.0)
    if total is None:
        return kept
    return kept * tf.math.divide_no_nan(tf.cast(total, kept.dtype), tf.reduce_sum(kept))
