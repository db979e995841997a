"""The check that a written SavedModel computes what its network computes."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.errors import TfkdError

TOLERANCE = 1e-5
# Two best logits closer than a few float32 roundings may change places without any fault.
_TIE = 1e-6
_IMAGES = 16
# For a network without a fixed image size.
_SIZE = 64


def verify(directory: Path, network: models.Network, model: keras.Model) -> None:
    """Loads a SavedModel again and compares both signatures with the network it came from.

    Random uint8 images go through ``serving_default`` and, normalised, through ``normalised``.
    Everything runs on the CPU, where float32 is float32 (a GPU may round to TensorFloat-32).

    Args:
        directory: The SavedModel.
        network: The network: its preprocessing is the reference.
        model: Its model in float32, not folded: the reference.

    Raises:
        TfkdError: When the logits differ by more than 1e-5 of max |logit| or name another class.
    """
    height, width, channels = (size or _SIZE for size in model.input_shape[1:])
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_IMAGES, height, width, channels), dtype=np.uint8)
    with tf.device("/CPU:0"):
        normalised = tf.convert_to_tensor(network.preprocess(tf.constant(images)))
        expected = np.asarray(model(normalised, training=False))
        signatures = tf.saved_model.load(str(directory)).signatures
        found = {
            "serving_default": signatures["serving_default"](image=tf.constant(images)),
            "normalised": signatures["normalised"](image=normalised),
        }
    for name, outputs in found.items():
        _compare(f"export of {network.name!r}, {name}", outputs["logits"].numpy(), expected)


def _compare(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Raises unless two arrays of logits, (batch, classes), are equal within the tolerance."""
    largest = float(np.max(np.abs(expected)))
    difference = float(np.max(np.abs(found - expected)))
    # Written so that NaN fails.
    if not difference <= TOLERANCE * largest:
        raise TfkdError(
            f"{what}: found logits that differ by {difference:.2e} from the network's, "
            f"wanted at most {TOLERANCE:g} of max |logit| = {largest:.4g}"
        )
    best = np.sort(expected, axis=-1)
    clear = best[:, -1] - best[:, -2] > _TIE * largest if expected.shape[-1] > 1 else False
    other = int(np.sum(clear & (np.argmax(found, -1) != np.argmax(expected, -1))))
    if other:
        raise TfkdError(f"{what}: found another class for {other} of {len(found)} images, wanted 0")
