"""A teacher as it is run: a copy of its own, folded once and checked against the original."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import keras
import numpy as np

from tfkd import models
from tfkd.errors import TfkdWarning

FOLDING_TOLERANCE = 1e-5
"""Largest difference that folding may make, relative to the largest absolute logit."""


def freeze(
    network: models.Network,
    *,
    keep: Iterable[str] = (),
    dtype: str | None = None,
    fold: bool = True,
) -> models.Network:
    """Returns a frozen copy of a network whose batch normalisation is folded into its layers.

    The original is neither changed nor used again. The copy is compared with the original on two
    random images; where folding changes the logits by more than ``1e-5`` of the largest, or where
    the model is not functional, the network is run as it is and a warning says so.

    Args:
        network: The teacher.
        keep: Names of the taps that will be read, which folding must not change.
        dtype: ``"bfloat16"`` to run the copy in that precision; ``None`` for the network's own. The
            check is always made in the network's own precision.
        fold: Whether to fold at all.
    """
    if not fold or not isinstance(network.model, keras.Model) or not _is_functional(network.model):
        if dtype is not None:
            warnings.warn(
                f"teacher {network.model.name!r} runs in its own precision, not {dtype}: only a "
                "folded copy of a functional model can change it",
                TfkdWarning,
                stacklevel=2,
            )
        return network
    folded = models.fold(network.model, keep=tuple(keep))
    error = folding_error(network.model, folded)
    if not error <= FOLDING_TOLERANCE:
        warnings.warn(
            f"teacher {network.model.name!r} is not folded: folding changes its logits by {error:.1e} "
            f"of the largest, more than {FOLDING_TOLERANCE:.0e}",
            TfkdWarning,
            stacklevel=2,
        )
        return network
    if dtype is not None:
        folded = models.fold(network.model, keep=tuple(keep), dtype=dtype)
    folded.trainable = False
    return models.Network(folded, network.preprocess, network.name)


def folding_error(original: keras.Model, folded: keras.Model) -> float:
    """Returns the largest difference of two models' outputs, relative to the largest output.

    Args:
        original: A functional model of images.
        folded: Its folded copy.
    """
    shape = [size or 32 for size in original.input_shape[1:]]
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    wanted = np.asarray(original(images, training=False), "float64")
    found = np.asarray(folded(images, training=False), "float64")
    return float(np.max(np.abs(wanted - found)) / max(np.max(np.abs(wanted)), 1e-30))


def _is_functional(model: keras.Model) -> bool:
    return isinstance(model, (keras.Sequential,)) or hasattr(model, "_operations")
