"""Mean and standard deviation of the channels, exact for uint8 images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MeanAndStd = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of every channel, in pixel units 0..255."""

_PIXELS = 2**20  # Counting makes a number of eight bytes of each.


def mean_and_std(chunks: Iterable[np.ndarray]) -> MeanAndStd:
    """Returns the mean and the standard deviation of every channel, in pixel units 0..255.

    Args:
        chunks: All images, uint8 (n, H, W, C) each; at least one.

    Returns:
        (mean, std), tuples of C floats. The deviation of a constant channel is given as 1, by which
        one can divide.
    """
    # The frequencies are whole numbers: how images are divided into chunks does not matter.
    histogram = sum(_histogram(chunk) for chunk in chunks)
    values = np.arange(256.0)
    frequency = histogram / histogram.sum(axis=1, keepdims=True)
    mean = frequency @ values
    variance = (frequency * (values - mean[:, None]) ** 2).sum(axis=1)
    std = np.where(variance > 0, np.sqrt(variance), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def _histogram(images: np.ndarray) -> np.ndarray:
    """Returns how often each value occurs in each channel, int64 (C, 256)."""
    pixels = images.reshape(-1, images.shape[-1])
    histogram = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(pixels), _PIXELS):
        for channel, values in enumerate(pixels[start : start + _PIXELS].T):
            histogram[channel] += np.bincount(values, minlength=256)
    return histogram
