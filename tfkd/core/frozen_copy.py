"""A teacher as it is run: a copy of its own, folded once and checked against the original."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable

import keras
import numpy as np

from tfkd import models
from tfkd.errors import TfkdError, TfkdWarning

FOLDING_TOLERANCE = 1e-5
"""Largest difference that folding may make, relative to the largest absolute logit."""

HALF_TOLERANCE = 0.05
"""The same for networks in half precision, whose rounding hides smaller differences."""


def frozen_copy(
    network: models.Network,
    *,
    keep: Iterable[str] = (),
    dtype: str | None = None,
    fold: bool = True,
) -> models.Network:
    """Returns a frozen copy of a network whose batch normalization is folded into its layers.

    The original is neither changed nor used again. The copy is compared with the original on two
    random images. Where folding changes the logits by more than ``1e-5`` of the largest, or where
    the model cannot be copied (a subclassed one, say), the network is run as it is; where that
    costs something that was asked for, a warning says so.

    Args:
        network: The teacher.
        keep: Names of the taps that will be read, which folding must not change.
        dtype: ``"bfloat16"`` to run the copy in that precision; ``None`` for the network's own. The
            check is always made in the network's own precision.
        fold: Whether to fold at all.

    Raises:
        TfkdError: For a name that is no tap.
    """
    model = network.model
    # Also the taps that the network has other names for: a head may start at one.
    keep = tuple(network.paths([*keep, *network.taps]).values())
    if not fold or not models.is_functional(model):
        if dtype is not None:
            _warn(
                f"teacher {model.name!r} runs in its own precision, not {dtype}: it is not folded"
            )
        return network
    models.tap_shapes(model, keep or list(models.outputs(model)))
    try:
        folded = models.fold(model, keep=keep)
    except TfkdError as error:
        _warn(f"teacher {model.name!r} runs as it is, without folding: {error}")
        return network
    difference, tolerance = folding_error(model, folded), _tolerance(model)
    if not difference <= tolerance:
        _warn(
            f"teacher {model.name!r} is not folded: folding changes its logits by {difference:.1e} "
            f"of the largest, more than {tolerance:.0e}"
        )
        return network
    if dtype is not None:
        folded = models.fold(model, keep=keep, dtype=dtype)
    folded.trainable = False
    return network.with_model(folded)


def weights_digest(model: keras.Model) -> int:
    """Returns a number of 32 bits that follows from every bit of a model's weights."""
    digest = 0
    for variable in model.weights:
        digest = zlib.crc32(np.ascontiguousarray(variable).tobytes(), digest)
    return digest


def folding_error(original: keras.Model, folded: keras.Model) -> float:
    """Returns the largest difference of two models' outputs, relative to the largest output.

    Args:
        original: A functional model of images.
        folded: Its folded copy.
    """
    shape = [size or 32 for size in original.input_shape[1:]]
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    pairs = zip(
        keras.tree.flatten(original(images, training=False)),
        keras.tree.flatten(folded(images, training=False)),
        strict=True,
    )
    return max(
        _relative_difference(*(np.asarray(each, "float64") for each in pair)) for pair in pairs
    )


def _relative_difference(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(np.max(np.abs(wanted - found)) / max(np.max(np.abs(wanted)), 1e-30))


def _tolerance(model: keras.Model) -> float:
    halves = ("float16", "bfloat16")
    computes_in_half = any(layer.compute_dtype in halves for layer in model._flatten_layers())
    return HALF_TOLERANCE if computes_in_half else FOLDING_TOLERANCE


def _warn(message: str) -> None:
    warnings.warn(message, TfkdWarning, stacklevel=3)
