"""The directions of the classes in the space of a teacher's features."""

from __future__ import annotations

import keras
import numpy as np

from tfkd.errors import TfkdError

_PROBES = 16
_TOLERANCE = 1e-3


def class_vectors(head: keras.Model, width: int, who: str) -> np.ndarray:
    """Returns the weights of each class in a linear head, of length 1, ``(classes, width)``.

    Args:
        head: From features ``(batch, width)`` to logits.
        width: Width of the features.
        who: Whose head it is, for the message.

    Raises:
        TfkdError: When the head is not linear.
    """

    def logits(features: np.ndarray) -> np.ndarray:
        found = head(features.astype(np.float32), training=False)
        return keras.ops.convert_to_numpy(keras.ops.cast(found, "float32"))

    bias = logits(np.zeros((1, width)))
    kernel = logits(np.eye(width)) - bias
    probes = np.random.default_rng(0).normal(size=(_PROBES, width))
    found, wanted = logits(probes), probes @ kernel + bias
    if np.abs(found - wanted).max() > _TOLERANCE * max(np.abs(wanted).max(), 1.0):
        raise TfkdError(
            f"{who}: found more than a linear layer between its feature and its logits, wanted a "
            "linear layer alone, whose weights are the directions of the classes"
        )
    lengths = np.linalg.norm(kernel, axis=0, keepdims=True)
    return (kernel / np.maximum(lengths, np.finfo(np.float32).tiny)).T.astype(np.float32)
