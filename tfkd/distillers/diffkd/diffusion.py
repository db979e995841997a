"""The noise that DiffKD adds to maps, and the deterministic steps that take it away (DDIM).

After k of 1000 steps of noise the share ``a_k = (1 - beta_0) ... (1 - beta_k)`` of a map's signal
is left, with ``beta`` rising linearly from 1e-4 to 0.02. A refinement starts in the middle of the
1000 and goes on in equal strides to 0, where a last step leaves the signal alone: with five steps
k = 400, 300, 200, 100, 0.

Maps are ``(batch, height, width, channels)``, float32 or float64; times are whole numbers, 0..999.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

NOISE_STEPS = 1000
"""Steps that turn a map into noise."""

Predictor = Callable[[tf.Tensor, tf.Tensor | int], tf.Tensor]
"""``predict(maps, times)``, of one time or of one for each sample, returns the noise in maps."""


@functools.cache
def signal_shares() -> np.ndarray:
    """Returns ``a_k`` of every time k, float64 ``(1000,)``."""
    return np.cumprod(1.0 - np.linspace(1e-4, 0.02, NOISE_STEPS))


def refinement_times(steps: int = 5) -> list[int]:
    """Returns the times of a refinement, falling to 0."""
    stride = NOISE_STEPS // (2 * steps)
    return [stride * step for step in reversed(range(steps))]


def mixed(maps: tf.Tensor, noise: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Returns ``share * maps + (1 - share) * noise``.

    Args:
        maps: The maps.
        noise: Noise of their shape.
        share: The paper's gamma, ``(batch,)``.
    """
    share = share[:, None, None, None]
    return share * maps + (1.0 - share) * noise


def refined(maps: tf.Tensor, predict: Predictor, steps: int = 5) -> tf.Tensor:
    """Returns maps without their noise.

    A step from k to j forms ``x0 = (x - sqrt(1 - a_k) e) / sqrt(a_k)`` with the predicted noise
    ``e``, and then ``sqrt(a_j) x0 + sqrt(1 - a_j) e``; ``a_j = 1`` in the last one.

    Args:
        maps: Noisy maps.
        predict: Predicts the noise in them.
        steps: Number of steps.
    """
    times = refinement_times(steps)
    shares = [*(float(signal_shares()[time]) for time in times), 1.0]
    for time, now, after in zip(times, shares, shares[1:]):
        # The step as one weighted sum of maps and noise.
        of_noise = (1.0 - after) ** 0.5 - (after * (1.0 - now) / now) ** 0.5
        maps = (after / now) ** 0.5 * maps + of_noise * predict(maps, time)
    return maps


def noisy(maps: tf.Tensor, noise: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """Returns ``sqrt(a_k) * maps + sqrt(1 - a_k) * noise``.

    Args:
        maps: The maps.
        noise: Noise of their shape.
        times: The time k of each sample, ``(batch,)``.
    """
    share = tf.gather(tf.constant(signal_shares(), maps.dtype), times)[:, None, None, None]
    return tf.sqrt(share) * maps + tf.sqrt(1.0 - share) * noise


def diffusion_loss(
    maps: tf.Tensor, noise: tf.Tensor, times: tf.Tensor, predict: Predictor
) -> tf.Tensor:
    """Returns the mean squared error of the noise predicted in :func:`noisy` maps, by sample.

    Args:
        maps: As for :func:`noisy`.
        noise: As there.
        times: As there.
        predict: What learns to predict the noise.
    """
    error = predict(noisy(maps, noise, times), times) - noise
    return tf.reduce_mean(tf.square(error), axis=(1, 2, 3))
