"""Mean and standard deviation of the channels, exact for uint8 images."""

from __future__ import annotations

import numpy as np

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of every channel, in pixel units 0..255."""

_CHUNK = 4096


def mean_and_std(images: np.ndarray) -> Statistics:
    """Returns the mean and the standard deviation of every channel, in pixel units 0..255.

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        (mean, std), tuples of C floats. The deviation of a constant channel is given as 1, by which
        one can divide.
    """
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        for channel in range(channels):
            histogram[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256.0)
    frequency = histogram / histogram.sum(axis=1, keepdims=True)
    mean = frequency @ values
    variance = (frequency * (values - mean[:, None]) ** 2).sum(axis=1)
    std = np.where(variance > 0, np.sqrt(variance), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())
