"""What the weights of HDKD are learned for: the balanced validation loss of all exits.

Wang and Li, "Harmonized Dense Knowledge Distillation Training for Multi-Exit Architectures", AAAI
2021. **Reconstruction**: a digest of the paper names the parts, the cross-entropy of each exit, its
ratio to a running mean, softplus and the share ``alpha`` of the former; the formula is ours::

    V      = 1/n sum_i [alpha * l_i + (1 - alpha) * softplus(l_i / E_i - 1)]
    E_i   <- rho * E_i + (1 - rho) * l_i                                        after that

with ``l_i`` the mean cross-entropy of exit ``i`` on a batch of held-out images and ``E_i`` a
constant of ``V``, at first the first ``l_i``. The ratio keeps the large losses of shallow exits
from being all that counts.
"""

from __future__ import annotations

import tensorflow as tf


def balanced_loss(
    losses: tf.Tensor, running: tf.Tensor, absolute_share: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns ``V``, a scalar, and its derivative with respect to each loss, ``(exits,)``.

    Args:
        losses: The ``l`` of each exit, ``(exits,)``.
        running: The ``E``, likewise.
        absolute_share: The share ``alpha``.
    """
    count = tf.cast(tf.size(losses), losses.dtype)
    excess = tf.math.divide_no_nan(losses, running) - 1.0
    ratio_share = 1.0 - absolute_share
    value = tf.reduce_sum(absolute_share * losses + ratio_share * tf.nn.softplus(excess)) / count
    of_ratios = tf.math.divide_no_nan(tf.nn.sigmoid(excess), running)
    return value, (absolute_share + ratio_share * of_ratios) / count
