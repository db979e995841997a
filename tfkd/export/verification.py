"""The check that a written SavedModel computes what its network computes."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.adder import has_adder_layers
from tfkd.errors import TfkdError
from tfkd.models.saving import in_precision

TOLERANCE = 1e-5
# An adder layer subtracts large sums, and the normalisation after it divides what is left by a small
# deviation: two float32 computations of such a network part by more than those of a convolution.
_ROUNDINGS = 4
# Two best logits closer than a few float32 roundings may change places without any fault.
_TIE = 1e-6
_IMAGES = 16
# For a network without a fixed image size.
_SIZE = 64


def verify(directory: Path, network: models.Network, model: keras.Model) -> None:
    """Loads a SavedModel again and compares both signatures with the network it came from.

    Random uint8 images go through ``serving_default`` and, normalised, through ``normalised``.
    Everything runs on the CPU, where float32 is float32 (a GPU may round to TensorFloat-32).

    The logits may differ by 1e-5 of max |logit|. Adder networks are compared with themselves in
    float64 instead, and may differ by four times as much as they do in float32, where that is more.

    Args:
        directory: The SavedModel.
        network: The network: its preprocessing is the reference.
        model: Its model in float32, not folded: the reference.

    Raises:
        TfkdError: When the logits differ by more than that, or name another class.
    """
    height, width, channels = (size or _SIZE for size in model.input_shape[1:])
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_IMAGES, height, width, channels), dtype=np.uint8)
    with tf.device("/CPU:0"):
        normalised = tf.convert_to_tensor(network.preprocess(tf.constant(images)))
        expected = np.asarray(model(normalised, training=False))
        tolerance = TOLERANCE * float(np.max(np.abs(expected)))
        tie = _TIE * float(np.max(np.abs(expected)))
        if has_adder_layers(model):
            in_float64 = in_precision(models.stock(model), "float64")
            exact = np.asarray(in_float64(normalised, training=False))
            rounding = float(np.max(np.abs(expected - exact)))
            expected = exact
            tolerance = max(tolerance, _ROUNDINGS * rounding)
            tie = 2 * tolerance
        signatures = tf.saved_model.load(str(directory)).signatures
        found = {
            "serving_default": signatures["serving_default"](image=tf.constant(images)),
            "normalised": signatures["normalised"](image=normalised),
        }
    for name, outputs in found.items():
        what = f"export of {network.name!r}, {name}"
        _compare(what, outputs["logits"].numpy(), expected, tolerance, tie)


def _compare(
    what: str, found: np.ndarray, expected: np.ndarray, tolerance: float, tie: float
) -> None:
    """Raises unless two arrays of logits, (batch, classes), are equal within the tolerance.

    Two best logits that are closer than ``tie`` may change places.
    """
    largest = float(np.max(np.abs(expected)))
    difference = float(np.max(np.abs(found - expected)))
    # Written so that NaN fails.
    if not difference <= tolerance:
        raise TfkdError(
            f"{what}: found logits that differ by {difference:.2e} from the network's, "
            f"wanted at most {tolerance / largest:.2g} of max |logit| = {largest:.4g}"
        )
    best = np.sort(expected, axis=-1)
    clear = best[:, -1] - best[:, -2] > tie if expected.shape[-1] > 1 else False
    other = int(np.sum(clear & (np.argmax(found, -1) != np.argmax(expected, -1))))
    if other:
        raise TfkdError(f"{what}: found another class for {other} of {len(found)} images, wanted 0")
